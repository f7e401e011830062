/** Deletes all that this page has stored in this browser: conversations, settings, the key. */
import { apiKey, rememberKey } from "../api/client";
import { database } from "../store/database";
import { clearValues } from "../store/clear";
import { tell } from "../store/tabs";
import { beforeRemoval, heads, startNew } from "./conversations";
import * as documents from "./documents";
import { settings, update } from "./settings";

/** Ends what runs, and deletes. Throws if the browser refuses; what is left is then still listed. */
export async function eraseEverything(): Promise<void> {
  const ids = heads.peek().map((head) => head.id);
  for (const id of ids) for (const prepare of beforeRemoval) prepare(id);
  await documents.flush();
  startNew();
  const store = await database();
  for (const id of ids) {
    documents.drop(id);
    await store.remove(id, 0);
    tell({ type: "removed", conversation: id });
  }
  await store.purge(Number.MAX_SAFE_INTEGER); // also what was removed before and could be taken back until now
  heads.value = await store.heads();
  rememberKey(false);
  apiKey.value = "";
  update(Object.fromEntries(Object.keys(settings.peek()).map((name) => [name, undefined])));
  clearValues();
}
