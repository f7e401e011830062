/** The icons: one grid of 20, one stroke, the colour of the text around them. They are never the only name of a button. */
const paths = {
  sidebar: "M3.5 4.5h13v11h-13zM8 4.5v11",
  plus: "M10 4v12M4 10h12",
  search: "M9 14.5a5.5 5.5 0 1 0 0-11 5.5 5.5 0 0 0 0 11zM13 13l3.5 3.5",
  close: "M5 5l10 10M15 5L5 15",
  more: "M4.5 10h.01M10 10h.01M15.5 10h.01",
  pin: "M10 12.5v4.5M6.5 12.5h7l-1.2-3.2V4.8l.7-1.3H7l.7 1.3v4.5z",
  edit: "M4 16l.7-3.2L13 4.5a1.4 1.4 0 0 1 2 0l.5.5a1.4 1.4 0 0 1 0 2L7.2 15.3z",
  trash: "M4 6h12M8 6V4h4v2M5.5 6l.7 10.5h7.6L14.5 6",
  copy: "M7.5 7.5h8.5v8.5H7.5zM12.5 7.5V4H4v8.5h3.5",
  check: "M4.5 10.5l3.5 3.5 7.5-8",
  again: "M15.5 8.5A6 6 0 1 0 16 11M15.8 4.5v4h-4",
  play: "M6.5 4.5l8.5 5.5-8.5 5.5z",
  left: "M12 5l-5 5 5 5",
  right: "M8 5l5 5-5 5",
  down: "M5 8l5 5 5-5",
  arrowDown: "M10 4v12M5 11l5 5 5-5",
  send: "M10 16V4.5M5 9.5l5-5 5 5",
  stop: "M6 6h8v8H6z",
  attach: "M15.5 9.5l-5.8 5.8a3.2 3.2 0 0 1-4.6-4.6l6.4-6.3a2.1 2.1 0 0 1 3 3l-6.3 6.3a1 1 0 0 1-1.5-1.5l5.3-5.3",
  file: "M5.5 3.5h6l3 3v10h-9zM11.5 3.5v3h3",
  gear: "M4 6.5h5M13 6.5h3M4 13.5h3M11 13.5h5M11 6.5m-2 0a2 2 0 1 0 4 0 2 2 0 1 0-4 0M9 13.5m-2 0a2 2 0 1 0 4 0 2 2 0 1 0-4 0",
  keyboard: "M2.5 5.5h15v9h-15zM5.5 8.5h.01M8.5 8.5h.01M11.5 8.5h.01M14.5 8.5h.01M7 11.7h6",
  thought: "M7.5 15.5h5M8.5 17.5h3M7.7 13.2c0-1.7-2.7-2.7-2.7-5.7a5 5 0 0 1 10 0c0 3-2.7 4-2.7 5.7z",
  noThought: "M7.5 15.5h5M8.5 17.5h3M6.3 5.2A5 5 0 0 0 5 7.5c0 3 2.7 4 2.7 5.7h4.6M13.2 11.3c.9-1 1.8-2 1.8-3.8a5 5 0 0 0-7-4.6M4 3l12 14",
  warning: "M10 3.5l7 12.5H3zM10 8.5v3.5M10 14.2h.01",
  clock: "M10 16.5a6.5 6.5 0 1 0 0-13 6.5 6.5 0 0 0 0 13zM10 6.5V10l2.5 1.5",
  code: "M7 5.5L2.5 10 7 14.5M13 5.5l4.5 4.5-4.5 4.5",
  vote: "M4 16.5V9.5h3v7zM8.5 16.5v-13h3v13zM13 16.5v-9h3v9z",
  replay: "M4.5 11.5a5.5 5.5 0 1 0 1.8-5.6L4 8M4 4v4h4M10 8v3.2l2 1.3",
  tint: "M4 15.5h12M5 12.5h4M11 12.5h4M4 9.5h2.5M8.5 9.5h7.5M4 6.5h7M13 6.5h3",
  form: "M3.5 4.5h13v11h-13zM6.5 8h2M11 8h2.5M6.5 12h2M11 12h2.5",
  share: "M10 12.5v-9M6.5 6.5L10 3l3.5 3.5M6 9.5H4.5v7h11v-7H14",
} as const;

export type IconName = keyof typeof paths;

export function Icon({ name }: { name: IconName }) {
  return (
    <svg class="icon" viewBox="0 0 20 20" aria-hidden="true">
      <path d={paths[name]} />
    </svg>
  );
}

/** The sign of the page, two arcs that answer each other. `phase` sets them in motion. */
export function Sign({ phase }: { phase?: string }) {
  return (
    <svg class="sign" data-phase={phase} viewBox="0 0 20 20" aria-hidden="true">
      <path d="M9 2.75a6 6 0 0 0 0 12" />
      <path d="M11 5.25a6 6 0 0 1 0 12" />
    </svg>
  );
}
