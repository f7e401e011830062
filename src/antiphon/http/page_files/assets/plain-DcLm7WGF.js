import{r as e,t}from"./inline-Df_UQL6I.js";function n(t){return e(t).map(e=>r(e.node,e.references)).join(`

`)}function r(e,n){let o=e=>t(e.content,n).children.map(a).join(``),s=(e,t)=>e.map(e=>r(e,n)).join(t);switch(e.type){case`paragraph`:case`words`:case`heading`:return o(e.leaf);case`quote`:return i(s(e.children,`

`),`> `,`> `);case`list`:return e.items.map((t,n)=>{let r=e.start===null?`- `:`${e.start+n}. `;return i((t.done===null?``:t.done?`[x] `:`[ ] `)+s(t.children,e.tight?`
`:`

`),r,` `.repeat(r.length))}).join(e.tight?`
`:`

`);case`table`:return[e.head,...e.rows].map(e=>e.map(o).join(`	`)).join(`
`);case`code`:return e.text.replace(/\n$/u,``);case`rule`:return`---`}}function i(e,t,n){return e.split(`
`).map((e,r)=>e===``&&r>0?``:(r===0?t:n)+e).join(`
`)}function a(e){if(typeof e==`string`)return e;switch(e.type){case`code`:return e.text;case`formula`:return e.source;case`break`:return`
`;case`link`:{let t=e.children.map(a).join(``);return t===e.href||t===``?e.href:`${t} (${e.href})`}default:return e.children.map(a).join(``)}}export{n as plainText};