/** Words of answers as they are shown: code, tables, tasks. */
export const textEn = {
  code: (language: string) => (language ? `${language} code` : "Code"),
  table: "Table",
  formula: "Formula",
  done: "Done:",
  open: "To do:",
};
