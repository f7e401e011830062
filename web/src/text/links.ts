/**
 * Which addresses an answer may link to, and what is shown of them.
 *
 * An answer is written by a model that may repeat text of strangers. So a link leads only to the web or to a mail program, and
 * where its words do not name its host, the host is shown beside them.
 */

export interface SafeLink {
  href: string;
  /** The host, or the mail address; never empty. */
  host: string;
}

const PROTOCOLS: ReadonlySet<string> = new Set(["http:", "https:", "mailto:"]);

/** The link as the browser will open it, or null if it is relative, of another protocol or malformed. */
export function safeLink(address: string): SafeLink | null {
  let url: URL;
  try {
    url = new URL(address); // the same parser that follows the link, so both agree on what the protocol is
  } catch {
    return null;
  }
  if (!PROTOCOLS.has(url.protocol)) return null;
  const host = url.protocol === "mailto:" ? decoded(url.pathname) : url.host;
  return host ? { href: url.href, host } : null;
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** The host to show after the words of a link, or null if the words already are the address or its host. */
export function hostToShow(link: SafeLink, words: string): string | null {
  const url = new URL(link.href);
  if (url.username || url.password) return link.host; // https://known.example@other.example/
  const text = words.trim().toLowerCase();
  if (text === link.host.toLowerCase()) return null;
  const named = safeLink(text) ?? safeLink(`https://${text}`);
  return named?.host === link.host && !/\s/.test(text) ? null : link.host;
}
