/** Words of answers as they are shown, in Chinese. */
import type { textEn } from "./text.en";

export const textZh: typeof textEn = {
  code: (language) => (language ? `${language} 代码` : "代码"),
  table: "表格",
  formula: "公式",
  done: "已完成：",
  open: "待办：",
};
