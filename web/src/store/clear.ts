/** Removes all small values that the browser keeps for this server's page. */
import { storedName } from "./place";

export function clearValues(): void {
  const prefix = storedName("");
  for (const place of [localStorage, sessionStorage]) {
    for (const name of Object.keys(place)) if (name.startsWith(prefix)) place.removeItem(name);
  }
}
