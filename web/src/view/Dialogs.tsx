/** All dialogs that are loaded on demand, to be mounted once. */
import { KeyPrompt } from "./KeyPrompt";
import { SettingsDialog } from "./SettingsDialog";
import { SchemaFormDialog } from "./Structured";
import { TransferDialog } from "./TransferMenu";

/** `onDescribe` gets a sentence about a structured answer's fields, to be put into the message. */
export function Dialogs({ onDescribe }: { onDescribe?: (text: string) => void }) {
  return (
    <>
      <SettingsDialog />
      <SchemaFormDialog {...(onDescribe ? { onDescribe } : {})} />
      <TransferDialog />
      <KeyPrompt />
    </>
  );
}
