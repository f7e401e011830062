/** What can be added to a message: text files, or a form that the answer fills in. */
import { useRef } from "preact/hooks";

import { words } from "../words";
import { attachFiles } from "./files";
import { Icon } from "./icons";
import { Menu } from "./Menu";
import { dialog } from "./ui";

export function AddMenu() {
  const w = words.value;
  const chooser = useRef<HTMLInputElement>(null);
  return (
    <>
      <Menu label={w.composer.add} button={<Icon name="plus" />}>
        {(close) => (
          <>
            <button
              type="button"
              onClick={() => {
                close();
                chooser.current?.click();
              }}
            >
              <Icon name="attach" /> {w.composer.attach}
            </button>
            <button
              type="button"
              onClick={() => {
                close();
                dialog.value = "schema";
              }}
            >
              <Icon name="form" /> {w.extras.structured.open}
            </button>
          </>
        )}
      </Menu>
      <input
        ref={chooser}
        type="file"
        multiple
        hidden
        onChange={(event) => {
          void attachFiles([...(event.currentTarget.files ?? [])]);
          event.currentTarget.value = "";
        }}
      />
    </>
  );
}
