/** The tally of a vote above its answers; loaded with the first vote. */
import type { Id } from "../state/conversation";
import { current } from "../state/conversations";
import { lazy } from "./parts/lazy";

const Tally = lazy<{ messageId: Id; onClose?: () => void }>(async () => (await import("./vote/TallyView")).TallyView);

export function VoteTally({ messageId }: { messageId: Id }) {
  return current.value.messages[messageId]?.answer?.vote ? <Tally messageId={messageId} /> : null;
}
