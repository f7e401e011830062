/** Everything that a reader sees, in English. Other languages have the same keys: see `Words`. */
import { extrasEn } from "./extras.en";
import { formatFor } from "./format";
import { textEn } from "./text.en";

const suffixes: Partial<Record<Intl.LDMLPluralRule, string>> = { one: "st", two: "nd", few: "rd" };
const format = formatFor("en", { hour: "h", minute: "min", second: "s" }, (value, rule) => `${value}${suffixes[rule] ?? "th"}`);
const { number, rate, duration } = format;
const tokens = (count: number): string => (count === 1 ? "1 token" : `${number(count)} tokens`);

export const en = {
  locale: "en",
  format,
  tokens,
  extras: extrasEn,
  text: textEn,

  page: {
    title: "Antiphon",
    skip: "Skip to the message box",
    main: "Conversation",
    menu: "Show conversations",
    hideMenu: "Hide conversations",
    settings: "Settings",
    shortcuts: "Keyboard shortcuts",
    close: "Close",
    more: "More",
    dropHere: "Drop text files to attach them",
  },

  sidebar: {
    label: "Conversations",
    newChat: "New chat",
    search: "Search",
    searchLabel: "Search conversations",
    clear: "Clear the search",
    pinned: "Pinned",
    today: "Today",
    earlier: "Earlier",
    found: "Found",
    none: "Conversations are kept in this browser. Yours will appear here.",
    noMatch: "Nothing found.",
    untitled: "New chat",
    actions: (title: string) => `Actions for “${title}”`,
    rename: "Rename",
    renameLabel: "Name of the conversation",
    pin: "Pin",
    unpin: "Unpin",
    remove: "Delete",
    removed: (title: string) => `“${title}” was deleted.`,
    undo: "Undo",
  },

  empty: {
    heading: "Ask something that takes some thought",
    about: (model: string, context?: number) => `${model}${context ? `, with room for ${tokens(context)}` : ""}`,
    examples: "Examples",
    prompts: [
      { name: "Count", text: "How many zeros does 100! end with? Explain each step." },
      { name: "Deduce", text: "Anna says Ben lies. Ben says Clara lies. Clara says both of them lie. Who tells the truth?" },
      { name: "Calculate", text: "A train leaves at 9:40 at 80 km/h; another follows at 10:10 at 120 km/h. When and where does it catch up?" },
      { name: "Write code", text: "Write a Python function that checks whether the brackets in a text match, and try it on three examples." },
    ],
  },

  message: {
    you: "You",
    assistant: "Answer",
    copy: "Copy",
    copied: "Copied",
    copyFailed: "The browser did not allow copying.",
    edit: "Edit",
    editLabel: "Edit your message",
    editHint: "The earlier version stays: switch back with the arrows.",
    send: "Send",
    cancel: "Cancel",
    remove: "Delete",
    removed: "The message and what followed it were deleted.",
    regenerate: "Answer again",
    continue: "Continue",
    branch: (index: number, count: number) => `Version ${index} of ${count}`,
    previous: "Previous version",
    next: "Next version",
    actions: "Actions",
    attachment: (name: string, size: string) => `${name}, ${size}`,
    older: "Loading earlier messages",
    latest: "Jump to latest",
    newText: "New text below",
  },

  thought: {
    live: "Thinking",
    title: (seconds?: number, count?: number) =>
      `Thought${seconds === undefined ? "" : ` for ${duration(seconds)}`}${count ? ` · ${tokens(count)}` : ""}`,
    soFar: (count: number) => `Thought so far · ${tokens(count)}`,
    closed: { budget: "budget spent", repetition: "was going in circles", request: "you asked for the answer" },
    showAll: "Show all",
    answerNow: "Answer now",
    unfinished: "unfinished",
  },

  phase: {
    connecting: "Sending",
    waiting: (position?: number) => (position ? `Waiting: ${format.ordinal(position)} in line` : "Waiting for a place"),
    reading: (processed?: number, total?: number) =>
      total ? `Reading the prompt: ${number(processed ?? 0)} of ${number(total)}` : "Reading the prompt",
    thinking: "Thinking",
    answering: "Answering",
    reconnecting: "The connection broke. Reconnecting",
    restarting: "The engine is restarting. The answer goes on after that",
    backoff: "Waiting to try again",
    tryAgainIn: (seconds: number) => `Trying again in ${Math.max(0, Math.ceil(seconds))} s`,
    tryNow: "Try now",
    perSecond: (value: number) => `${rate(value)} tokens/s`,
    done: "Answer complete.",
    stopped: "Stopped.",
  },

  ending: {
    stopped: "You stopped this answer.",
    broken: "This answer was interrupted.",
    length: (count?: number) => (count ? `The limit of ${tokens(count)} was reached.` : "The length limit was reached."),
    full: "The context is full: the answer cannot go on here. Start a new chat, or delete earlier messages.",
    spent: (count: number) => `The thought used all ${tokens(count)}, so there is no answer. Continue, or raise the limit in the settings.`,
    empty: "The model ended without an answer.",
  },

  degraded: {
    note: (limits: string[]) => `The server was busy and limited this answer: ${limits.join(", ")}.`,
    maxTokens: (count: number) => `at most ${tokens(count)}`,
    thoughtBudget: (count: number) => `a thought of at most ${tokens(count)}`,
    temperature: (value: number) => `temperature ${number(value)}`,
  },

  fault: {
    unreachable: "The server cannot be reached.",
    unauthorized: "The server asks for an API key, or does not accept this one.",
    rate: "Too many requests: the server's limit for you is reached.",
    overloaded: "The server is full.",
    loading: "The model is loading.",
    context: "The conversation is longer than the model's context.",
    room: (used: number, limit: number) =>
      `The conversation has ${tokens(used)}, but only ${number(limit)} fit. Start a new chat, or delete earlier messages.`,
    refused: "The server refused the request.",
    failed: "The server failed.",
    storage: "The browser could not save this conversation. Export it, or free some space.",
  },

  timings: {
    label: "Timings of this answer",
    summary: (count: number, perSecond: number) => `${tokens(count)} · ${rate(perSecond)} tokens/s`,
    queue: "Waited",
    prompt: "Read the prompt",
    cached: (count: number) => `${tokens(count)} known already`,
    wrote: "Wrote",
    thought: "of which thought",
    seed: "Seed",
    at: (value: number) => `${rate(value)} tokens/s`,
    ms: (milliseconds: number) => duration(milliseconds / 1000),
  },

  composer: {
    label: "Your message",
    placeholder: "Write a message",
    send: "Send",
    stop: "Stop",
    add: "Add files or a form",
    attach: "Attach text files",
    detach: (name: string) => `Remove ${name}`,
    notText: (name: string) => `“${name}” is not a text file.`,
    tooLarge: (name: string, limit: string) => `“${name}” is larger than ${limit}.`,
    hint: "Enter sends, Shift+Enter starts a new line",
    thinking: "Thinking",
    thinkingOn: "Thinking",
    thinkingOff: "No thinking",
    thinkingUpTo: (count: number) => `Thinking ≤ ${number(count)}`,
    thinkingNote: "Answers at once when off. A budget closes the thought after so many tokens.",
    budget: "Budget",
    unlimited: "No limit",
  },

  status: {
    label: "State of the server",
    free: "Nobody is waiting",
    busy: (running: number, waiting: number) =>
      `${number(running)} being answered${waiting ? `, ${number(waiting)} waiting` : ""}`,
    forYou: (value: number) => `about ${rate(value)} tokens/s for you`,
    thousand: (seconds: number) => `1,000 tokens ≈ ${about(seconds)}`,
    loading: (share?: number) => `Loading the model${share === undefined ? "" : `: ${format.percent(share)}`}`,
    restarting: "The engine is restarting; answers go on by themselves",
    draining: "The server is shutting down; running answers are finished",
    failed: "The model could not be loaded",
    stopped: "The engine has stopped",
    unreachable: "The server cannot be reached",
    unauthorized: "An API key is needed",
    tryNow: "Try now",
    unknown: "Connecting",
  },

  shortcuts: {
    title: "Keyboard shortcuts",
    newChat: "New chat",
    search: "Search conversations",
    focus: "Go to the message box",
    stop: "Stop the answer",
    menu: "Show or hide conversations",
    help: "Show this list",
    send: "Send",
    line: "New line",
  },
};

function about(seconds: number): string {
  return duration(seconds < 90 ? Math.max(1, Math.round(seconds / 5) * 5) : Math.round(seconds / 60) * 60);
}

export type Words = typeof en;
