/** The paths of a vote in a conversation, in their order, with what is running of them. */
import type { Conversation, Id, Message } from "../../state/conversation";
import { siblings } from "../../state/conversation";

/** The answers of the vote that `messageId` belongs to; empty if it belongs to none. */
export function pathsOf(conversation: Conversation, messageId: Id): Message[] {
  const vote = conversation.messages[messageId]?.answer?.vote;
  if (!vote) return [];
  return siblings(conversation, messageId)
    .map((id) => conversation.messages[id])
    .filter((message): message is Message => message?.answer?.vote?.id === vote.id)
    .sort((a, b) => (a.answer?.vote?.index ?? 0) - (b.answer?.vote?.index ?? 0));
}
