/**
 * Where the page lives, and small values that the browser keeps for it.
 *
 * Two servers may share an origin below different paths, so the path is part of every stored name. Storage may be blocked or
 * full: reading then finds nothing, and writing says so.
 */

/** The address that relative addresses start from. */
export function baseUri(): string {
  return typeof document === "undefined" ? "http://localhost/" : document.baseURI;
}

/** The name under which something of this server is stored in this browser. */
export function storedName(name: string): string {
  const folder = new URL(baseUri()).pathname.replace(/[^/]*$/u, "");
  return `antiphon:${folder}:${name}`;
}

/** "session" values are gone when the tab closes. */
export type Area = "local" | "session";

export function readValue(area: Area, name: string): string | null {
  try {
    return storage(area)?.getItem(storedName(name)) ?? null;
  } catch {
    return null;
  }
}

/** Returns whether the value is stored; null removes it. */
export function writeValue(area: Area, name: string, value: string | null): boolean {
  try {
    const place = storage(area);
    if (!place) return false;
    if (value === null) place.removeItem(storedName(name));
    else place.setItem(storedName(name), value);
    return true;
  } catch {
    return false;
  }
}

function storage(area: Area): Storage | undefined {
  return area === "local" ? globalThis.localStorage : globalThis.sessionStorage;
}
