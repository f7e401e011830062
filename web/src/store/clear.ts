/** Removes all small values that the browser keeps for this server's page. */
import { storedName } from "./place";

/** Where storage is blocked, nothing of the page is in it. */
export function clearValues(): void {
  const prefix = storedName("");
  for (const area of ["localStorage", "sessionStorage"] as const) {
    try {
      const place = globalThis[area];
      for (const name of Object.keys(place)) if (name.startsWith(prefix)) place.removeItem(name);
    } catch {
      continue;
    }
  }
}
