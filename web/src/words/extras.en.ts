/** English words for the small controls around a message and the composer, which are part of the first load. */
import { formatFor } from "./format";

const { number } = formatFor("en", { hour: "h", minute: "min", second: "s" }, (value) => String(value));
const tokens = (count: number): string => (count === 1 ? "1 token" : `${number(count)} tokens`);

export const extrasEn = {
  loadFailed: "This part of the page could not be loaded. Check that the server is running, then try again.",
  close: "Close",

  meter: {
    label: "Context",
    used: (used: number, limit: number) => `${number(used)} of ${number(limit)}`,
    description: (used: number, limit: number) =>
      `The conversation and your message have ${tokens(used)}, of ${number(limit)} that fit.`,
    about: (used: number, limit: number) => `about ${number(used)} of ${number(limit)}`,
    unknown: "Token count not known",
    unknownWhy: "The server did not count the tokens. It does so once it is ready.",
    over: (excess: number) => `${tokens(excess)} too many. Shorten the message, remove a file, or start a new chat.`,
    tight: (left: number) => `Only ${tokens(left)} left for the answer.`,
  },

  copyMenu: {
    open: "Copy as…",
    label: "Copy the answer as",
    markdown: "Markdown",
    plain: "Plain text",
    curl: "curl command",
    python: "Python script",
    copied: (what: string) => `${what} copied`,
    failed: "The browser did not allow copying.",
  },

  voteButton: {
    open: "Vote",
    why: "Ask several times and compare the boxed answers",
    title: "Ask several times",
    explain: "The answers share the work on the prompt. Results in a \\boxed{} are counted.",
    count: "Number of answers",
    one: (count: number) => `${number(count)}`,
    bounds: (least: number, most: number) => `A whole number from ${least} to ${most}.`,
    ask: (count: number) => `Ask ${number(count)} times`,
    needsText: "Write a message first.",
  },

  replay: {
    button: "Replay",
    why: "Ask again with the same seed and settings, and compare",
    cannot: {
      continued: "An answer that was continued cannot be replayed in one go",
      vote: "Of a vote, only the first answer can be replayed alone",
    },
    running: "Replaying…",
    same: (characters: number) => `The same, character by character (${number(characters)}).`,
    different: (at: number) => `Different after ${at === 1 ? "1 character" : `${number(at)} characters`}.`,
    inThought: (at: number) =>
      `The thought is different after ${at === 1 ? "1 character" : `${number(at)} characters`}.`,
    first: "First time",
    again: "Replay",
    end: "(ends here)",
    hint: "Another model, version or computer can give another answer. An answer that was stopped is compared as far as it goes.",
    failed: "The replay did not finish, so nothing was compared.",
    dismiss: "Hide",
  },

  tint: {
    show: "Show probabilities",
    hide: "Hide probabilities",
  },

  structured: {
    on: (name: string) => `Structured: ${name}`,
    untitled: "JSON",
    edit: "Edit the form of the answer",
    remove: "Answer freely again",
    open: "Structured answer…",
  },

  transfer: {
    open: "Export, import, share…",
  },
};

export type ExtrasWords = typeof extrasEn;
