/** Copies an answer as Markdown or plain text, or the request for it as a curl command or a Python script. */
import type { Conversation, Id } from "../state/conversation";
import { current } from "../state/conversations";
import { words } from "../words";
import { copyText } from "./copy";
import { Icon } from "./icons";
import { Menu } from "./Menu";
import { toast } from "./ui";

const FORMS = ["markdown", "plain", "curl", "python"] as const;
type Form = (typeof FORMS)[number];

async function write(form: Form, conversation: Conversation, id: Id): Promise<string> {
  const text = conversation.messages[id]?.text ?? "";
  if (form === "markdown") return text;
  if (form === "plain") return (await import("./plain")).plainText(text);
  const { toCurl, toPython } = await import("../store/transfer");
  return form === "curl" ? toCurl(conversation, id) : toPython(conversation, id);
}

async function copy(form: Form, id: Id): Promise<void> {
  const { copyMenu } = words.value.extras;
  const copied = await copyText(await write(form, current.value, id));
  toast(copied ? copyMenu.copied(copyMenu[form]) : copyMenu.failed);
}

export function CopyMenu({ messageId }: { messageId: Id }) {
  const { copyMenu } = words.value.extras;
  return (
    <Menu label={copyMenu.open} button={<Icon name="code" />}>
      {FORMS.map((form) => (
        <CopyItem key={form} form={form} id={messageId} />
      ))}
    </Menu>
  );
}

function CopyItem({ form, id }: { form: Form; id: Id }) {
  const { copyMenu } = words.value.extras;
  return (
    <button
      type="button"
      onClick={(event) => {
        event.currentTarget.closest<HTMLElement>("[popover]")?.hidePopover();
        void copy(form, id);
      }}
    >
      {copyMenu[form]}
    </button>
  );
}
