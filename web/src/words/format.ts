/** Numbers and times as each language writes them. */

export interface Format {
  /** 1,200 */
  number(value: number): string;
  /** Tokens a second: one decimal below 20. */
  rate(value: number): string;
  /** A length of time in words: "41 s", "2 min 5 s". */
  duration(seconds: number): string;
  /** A number in line: "3rd". */
  ordinal(value: number): string;
  /** 40 % */
  percent(share: number): string;
  /** A day and a time of day. */
  moment(milliseconds: number): string;
}

interface Units {
  hour: string;
  minute: string;
  second: string;
}

export function formatFor(locale: string, units: Units, ordinal: (value: number, rule: Intl.LDMLPluralRule) => string): Format {
  const whole = new Intl.NumberFormat(locale, { maximumFractionDigits: 0 });
  const precise = new Intl.NumberFormat(locale, { maximumFractionDigits: 1 });
  const share = new Intl.NumberFormat(locale, { style: "percent", maximumFractionDigits: 0 });
  const moment = new Intl.DateTimeFormat(locale, { dateStyle: "medium", timeStyle: "short" });
  const rules = new Intl.PluralRules(locale, { type: "ordinal" });
  return {
    number: (value) => whole.format(value),
    rate: (value) => (value < 20 ? precise : whole).format(value),
    duration: (seconds) => inUnits(seconds, units, precise, whole),
    ordinal: (value) => ordinal(value, rules.select(value)),
    percent: (value) => share.format(value),
    moment: (milliseconds) => moment.format(milliseconds),
  };
}

function inUnits(seconds: number, units: Units, precise: Intl.NumberFormat, whole: Intl.NumberFormat): string {
  if (seconds < 9.95) return `${precise.format(seconds)} ${units.second}`;
  const total = Math.round(seconds);
  const [hours, minutes, rest] = [Math.floor(total / 3600), Math.floor(total / 60) % 60, total % 60];
  const parts = [
    hours ? `${whole.format(hours)} ${units.hour}` : "",
    minutes ? `${minutes} ${units.minute}` : "",
    rest && !hours ? `${rest} ${units.second}` : "",
  ];
  return parts.filter(Boolean).join(" ");
}

/** A running clock: "0:41", "12:05", "1:02:05". */
export function clock(seconds: number): string {
  const total = Math.max(0, Math.floor(seconds));
  const two = (value: number): string => String(value).padStart(2, "0");
  const [hours, minutes, rest] = [Math.floor(total / 3600), Math.floor(total / 60) % 60, total % 60];
  return hours ? `${hours}:${two(minutes)}:${two(rest)}` : `${minutes}:${two(rest)}`;
}
