/**
 * Which tab runs which answer. The database has the last word: a claim is taken over in one transaction, and a tab that lost
 * one finds out when it saves.
 */
import { effect } from "@preact/signals";
import { database, noteStorage } from "../store/database";
import { listen, others, tab, tell, type TabMessage } from "../store/tabs";
import { withChange, type Answer, type Id, type Message } from "./conversation";
import * as documents from "./documents";
import { cancel, stop, wakeAll } from "./follow";
import { beforeRemoval, current, startConversations } from "./conversations";
import { live } from "./live";
import { reach, startPolling, status } from "./server";
import { followSettings } from "./settings";
import { answerTabs, isHidden, noteVisibility, runs } from "./streams";

const LOOK_EVERY = 10_000; // ms: for answers whose tab is gone without a word
const LEFT_AFTER = 2500; // ms: a tab that is only loaded again attaches itself first

type Resume = (conversation: Id, message: Message) => Promise<void>;

/** Answers that broke in this tab, with their conversations: the server may still have them. */
export const brokenOff = new Map<Id, Id>();

let started: Promise<void> | undefined;

/** Starts all that the page needs, and resumes the answers that no tab runs. */
export function attachAll(resume: Resume): Promise<void> {
  started ??= start(resume);
  return started;
}

/** Asks the tab that runs an answer; if there is none any more, it is resumed here at the next look. */
export function ask(message: TabMessage): void {
  tell(message);
}

async function start(resume: Resume): Promise<void> {
  documents.hooks.lost = letGo;
  beforeRemoval.add((conversation) => {
    for (const run of runs.values()) if (run.conversation === conversation) stop(run);
  });
  listen((message) => heard(message, () => void resumeAll(resume).catch(noteStorage)));
  answerTabs();
  followSettings();
  startPolling();
  watchVisibility();
  watchEngine();
  watchReach(resume);
  await startConversations();
  const look = (): Promise<void> => resumeAll(resume).catch(noteStorage);
  await look();
  setInterval(() => isHidden() || void look(), LOOK_EVERY);
  effect(() => wantShown(current.value.id));
}

async function resumeAll(resume: Resume): Promise<void> {
  const store = await database();
  const claims = (await store.claims()).filter(({ tab: owner, message }) => owner !== tab || !runs.has(message));
  if (claims.length === 0) return;
  const alive = await others();
  for (const { message, conversation, tab: owner } of claims) {
    if (alive.has(owner) || !(await store.takeOver(message, owner, tab))) continue;
    await resumeOne(conversation, message, resume);
  }
}

async function resumeOne(conversation: Id, id: Id, resume: Resume): Promise<void> {
  await documents.refresh(conversation);
  const message = (await documents.load(conversation))?.messages[id];
  if (message?.answer?.state !== "running" || runs.has(id)) return;
  if (message.answer.responseId !== undefined) void resume(conversation, message);
  else breakOff(conversation, id);
}

/** The server does not run it any more. */
function breakOff(conversation: Id, id: Id): void {
  documents.begin(id, conversation);
  documents.end(id);
  documents.changeIn(conversation, (all) =>
    withChange(all, id, (message) => ({ ...message, answer: { ...(message.answer as Answer), state: "broken" } })),
  );
  void documents.flush();
}

/** Another tab runs them. What this tab asked for besides is of no use. */
function letGo(conversation: Id, messages: Id[]): void {
  for (const id of messages) {
    const run = runs.get(id);
    const theirs = documents.documentOf(conversation)?.messages[id]?.answer?.responseId;
    run?.handOver(false);
    if (run?.responseId !== undefined && run.responseId !== theirs) void cancel(run.responseId);
  }
}

function heard(message: TabMessage, look: () => void): void {
  if (message.type === "leaving") setTimeout(look, LEFT_AFTER);
  if (message.type === "stop") {
    const run = runs.get(message.message);
    if (run) stop(run);
  }
  if (message.type === "want") {
    const run = runs.get(message.message);
    if (run?.responseId !== undefined && isHidden()) void giveUp(run.id).catch(noteStorage);
  }
  if (message.type === "free" && !isHidden()) look();
}

/** Lets the tab that shows an answer run it. */
async function giveUp(id: Id): Promise<void> {
  runs.get(id)?.handOver();
  await documents.flush();
  await (await database()).takeOver(id, tab, "");
  tell({ type: "free", message: id });
}

/** Answers that are shown here and run in a hidden tab are better run here. */
function wantShown(conversation: Id): void {
  for (const message of Object.values(documents.documentOf(conversation)?.messages ?? {})) {
    const runsElsewhere = message.answer?.state === "running" && !runs.has(message.id);
    if (runsElsewhere) tell({ type: "want", message: message.id });
  }
}

function watchVisibility(): void {
  document.addEventListener("visibilitychange", () => {
    noteVisibility();
    if (!isHidden()) wakeAll();
    storeAll();
  });
  window.addEventListener("online", wakeAll);
  window.addEventListener("pagehide", () => {
    storeAll();
    tell({ type: "leaving" });
  });
}

function storeAll(): void {
  for (const run of runs.values()) run.store();
  void documents.flush();
}

/** Answers that broke off because the server could not be reached go on when it can. */
function watchReach(resume: Resume): void {
  effect(() => {
    if (reach.value !== "ok") return;
    for (const [id, conversation] of brokenOff) {
      const message = documents.documentOf(conversation)?.messages[id];
      if (message?.answer?.state === "broken" && message.answer.responseId !== undefined) void resume(conversation, message);
    }
    brokenOff.clear();
  });
}

/** An engine that starts again only pauses its answers. */
function watchEngine(): void {
  effect(() => {
    const isRestarting = status.value?.state === "restarting";
    for (const { messageId, phase } of live.peek().values()) {
      if (isRestarting && phase !== "backoff" && phase !== "reconnecting") runs.get(messageId)?.enter("restarting");
      if (!isRestarting && phase === "restarting") runs.get(messageId)?.enter("waiting");
    }
  });
}
