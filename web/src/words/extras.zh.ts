/** Chinese words for the small controls around a message and the composer. */
import type { ExtrasWords } from "./extras.en";
import { formatFor } from "./format";

const { number } = formatFor("zh-CN", { hour: "小时", minute: "分", second: "秒" }, (value) => String(value));
const tokens = (count: number): string => `${number(count)} 个 token`;

export const extrasZh: ExtrasWords = {
  loadFailed: "页面的这一部分未能加载。请确认服务器正在运行，然后重试。",
  close: "关闭",

  meter: {
    label: "上下文",
    used: (used, limit) => `${number(used)} / ${number(limit)}`,
    description: (used, limit) => `对话和你的消息共 ${tokens(used)}，上限为 ${number(limit)}。`,
    about: (used, limit) => `约 ${number(used)} / ${number(limit)}`,
    unknown: "token 数未知",
    unknownWhy: "服务器还没有统计 token 数；就绪后会自动统计。",
    over: (excess) => `超出 ${tokens(excess)}。请缩短消息、移除文件或开始新对话。`,
    tight: (left) => `只剩 ${tokens(left)}可用于回答。`,
  },

  copyMenu: {
    open: "复制为…",
    label: "将回答复制为",
    markdown: "Markdown",
    plain: "纯文本",
    curl: "curl 命令",
    python: "Python 脚本",
    copied: (what) => `已复制${what}`,
    failed: "浏览器不允许复制。",
  },

  voteButton: {
    open: "投票",
    why: "多次提问并比较方框中的答案",
    title: "多次提问",
    explain: "各次回答共享对提示词的计算，并统计 \\boxed{} 中的结果。",
    count: "回答次数",
    one: (count) => number(count),
    bounds: (least, most) => `请输入 ${least} 到 ${most} 之间的整数。`,
    ask: (count) => `提问 ${number(count)} 次`,
    needsText: "请先输入消息。",
  },

  replay: {
    button: "重放",
    why: "用相同的种子和设置再问一次并比较",
    cannot: {
      continued: "续写过的回答无法一次重放",
      vote: "投票中只有第一个回答可以单独重放",
    },
    running: "正在重放…",
    same: (characters) => `完全相同，逐字一致（${number(characters)} 个字符）。`,
    different: (at) => `从第 ${number(at + 1)} 个字符起不同。`,
    inThought: (at) => `思考过程从第 ${number(at + 1)} 个字符起不同。`,
    first: "第一次",
    again: "重放",
    end: "（到此结束）",
    hint: "换了模型、版本或计算机，答案可能不同。中途停止的回答只比较已有的部分。",
    failed: "重放没有完成，因此未作比较。",
    dismiss: "隐藏",
  },

  tint: { show: "显示概率", hide: "隐藏概率" },

  structured: {
    on: (name) => `结构化：${name}`,
    untitled: "JSON",
    edit: "编辑回答的格式",
    remove: "恢复自由回答",
    open: "结构化回答…",
  },

  transfer: { open: "导出、导入、分享…" },
};
