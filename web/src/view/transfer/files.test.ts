import { expect, it } from "vitest";

import { fileName } from "./files";

const day = new Date(2026, 0, 5);

it.each([
  ["How many zeros does 100! end with?", "How-many-zeros-does-100-end-with-2026-01-05.md"],
  ["../../etc/passwd", "etc-passwd-2026-01-05.md"],
  ["多少个零？", "多少个零-2026-01-05.md"],
  ["???", "antiphon-2026-01-05.md"],
  ["", "antiphon-2026-01-05.md"],
  [`${"a".repeat(59)} b`, `${"a".repeat(59)}-2026-01-05.md`],
])("%j is saved as %s", (title, name) => {
  expect(fileName(title, day, "md")).toBe(name);
});
