/** Everything that a reader sees, in Chinese. */
import type { Words } from "./en";
import { extrasZh } from "./extras.zh";
import { formatFor } from "./format";
import { textZh } from "./text.zh";

const format = formatFor("zh-CN", { hour: "小时", minute: "分", second: "秒" }, (value) => `第 ${value}`);
const { number, rate, duration } = format;
const tokens = (count: number): string => `${number(count)} 个 token`;

export const zh: Words = {
  locale: "zh-CN",
  format,
  tokens,
  extras: extrasZh,
  text: textZh,

  page: {
    title: "Antiphon",
    skip: "跳到输入框",
    main: "对话",
    menu: "显示对话列表",
    hideMenu: "隐藏对话列表",
    settings: "设置",
    shortcuts: "键盘快捷键",
    close: "关闭",
    more: "更多",
    dropHere: "松开鼠标即可附加文本文件",
  },

  sidebar: {
    label: "对话列表",
    newChat: "新对话",
    search: "搜索",
    searchLabel: "搜索对话",
    clear: "清除搜索",
    pinned: "已置顶",
    today: "今天",
    earlier: "更早",
    found: "搜索结果",
    none: "对话保存在这个浏览器里，之后会显示在这里。",
    noMatch: "没有找到相关内容。",
    untitled: "新对话",
    actions: (title) => `“${title}”的操作`,
    rename: "重命名",
    renameLabel: "对话名称",
    pin: "置顶",
    unpin: "取消置顶",
    remove: "删除",
    removed: (title) => `已删除“${title}”。`,
    undo: "撤销",
  },

  empty: {
    heading: "问一个值得想一想的问题",
    about: (model, context) => `${model}${context ? `，上下文可容纳 ${tokens(context)}` : ""}`,
    examples: "示例",
    prompts: [
      { name: "计数", text: "100 的阶乘末尾有多少个零？请写出每一步。" },
      { name: "推理", text: "甲说乙在说谎，乙说丙在说谎，丙说甲和乙都在说谎。谁说的是真话？" },
      { name: "计算", text: "一列火车 9:40 出发，时速 80 公里；另一列 10:10 从同一车站出发，时速 120 公里。何时何地追上？" },
      { name: "写代码", text: "写一个 Python 函数，检查一段文本里的括号是否配对，并用三个例子测试。" },
    ],
  },

  message: {
    you: "你",
    assistant: "回答",
    copy: "复制",
    copied: "已复制",
    copyFailed: "浏览器不允许复制。",
    edit: "编辑",
    editLabel: "编辑你的消息",
    editHint: "原来的版本会保留，可以用箭头切换回去。",
    send: "发送",
    cancel: "取消",
    remove: "删除",
    removed: "已删除这条消息以及它之后的内容。",
    regenerate: "重新回答",
    continue: "继续",
    branch: (index, count) => `第 ${index} 个版本，共 ${count} 个`,
    previous: "上一个版本",
    next: "下一个版本",
    actions: "操作",
    attachment: (name, size) => `${name}，${size}`,
    older: "正在加载更早的消息",
    latest: "回到最新",
    newText: "下面有新内容",
  },

  thought: {
    live: "正在思考",
    title: (seconds, count) =>
      `思考${seconds === undefined ? "过程" : `了 ${duration(seconds)}`}${count ? ` · ${tokens(count)}` : ""}`,
    soFar: (count) => `已思考 ${tokens(count)}`,
    closed: { budget: "达到思考上限", repetition: "思路在原地打转，已结束", request: "应你的要求直接作答" },
    showAll: "显示全部",
    answerNow: "直接回答",
    unfinished: "未完成",
  },

  phase: {
    connecting: "正在发送",
    waiting: (position) => (position ? `排队中：${format.ordinal(position)} 位` : "排队中"),
    reading: (processed, total) => (total ? `正在读取输入：${number(processed ?? 0)} / ${number(total)}` : "正在读取输入"),
    thinking: "正在思考",
    answering: "正在回答",
    reconnecting: "连接中断，正在重新连接",
    restarting: "引擎正在重启，之后会接着回答",
    backoff: "等待重试",
    tryAgainIn: (seconds) => `${Math.max(0, Math.ceil(seconds))} 秒后重试`,
    tryNow: "立即重试",
    perSecond: (value) => `每秒 ${rate(value)} 个 token`,
    done: "回答完毕。",
    stopped: "已停止。",
  },

  ending: {
    stopped: "你停止了这个回答。",
    broken: "这个回答被中断了。",
    length: (count) => (count ? `已达到 ${tokens(count)} 的上限。` : "已达到长度上限。"),
    full: "上下文已满，无法在这里继续。请开始新对话，或删除较早的消息。",
    spent: (count) => `思考用完了全部 ${tokens(count)}，所以没有回答。可以继续，或在设置中提高上限。`,
    empty: "模型没有给出回答就结束了。",
  },

  degraded: {
    note: (limits) => `服务器繁忙，限制了这个回答：${limits.join("，")}。`,
    maxTokens: (count) => `最多 ${tokens(count)}`,
    thoughtBudget: (count) => `思考最多 ${tokens(count)}`,
    temperature: (value) => `温度 ${number(value)}`,
  },

  fault: {
    unreachable: "无法连接到服务器。",
    unauthorized: "服务器需要 API 密钥，或者当前的密钥无效。",
    rate: "请求过于频繁，已达到服务器给你的限额。",
    overloaded: "服务器已满。",
    loading: "模型正在加载。",
    context: "对话超出了模型的上下文长度。",
    room: (used, limit) => `对话有 ${tokens(used)}，但只能容纳 ${number(limit)} 个。请开始新对话，或删除较早的消息。`,
    refused: "服务器拒绝了这个请求。",
    failed: "服务器出错了。",
    storage: "浏览器无法保存这个对话。请导出对话，或清理一些空间。",
  },

  timings: {
    label: "这个回答的用时",
    summary: (count, perSecond) => `${tokens(count)} · 每秒 ${rate(perSecond)} 个`,
    queue: "排队",
    prompt: "读取输入",
    cached: (count) => `其中 ${tokens(count)} 已有缓存`,
    wrote: "生成",
    thought: "其中思考",
    seed: "随机种子",
    at: (value) => `每秒 ${rate(value)} 个 token`,
    ms: (milliseconds) => duration(milliseconds / 1000),
  },

  composer: {
    label: "你的消息",
    placeholder: "输入消息",
    send: "发送",
    stop: "停止",
    add: "添加文件或表单",
    attach: "附加文本文件",
    detach: (name) => `移除 ${name}`,
    notText: (name) => `“${name}”不是文本文件。`,
    tooLarge: (name, limit) => `“${name}”超过了 ${limit}。`,
    hint: "Enter 发送，Shift+Enter 换行",
    thinking: "思考",
    thinkingOn: "思考",
    thinkingOff: "不思考",
    thinkingUpTo: (count) => `思考 ≤ ${number(count)}`,
    thinkingNote: "关闭后直接回答。设置上限后，思考达到这么多 token 就会结束。",
    budget: "上限",
    unlimited: "不限",
  },

  status: {
    label: "服务器状态",
    free: "无人排队",
    busy: (running, waiting) => `${number(running)} 个正在回答${waiting ? `，${number(waiting)} 个在排队` : ""}`,
    forYou: (value) => `你大约每秒 ${rate(value)} 个 token`,
    thousand: (seconds) => `1,000 个 token ≈ ${about(seconds)}`,
    loading: (share) => `正在加载模型${share === undefined ? "" : `：${format.percent(share)}`}`,
    restarting: "引擎正在重启，回答会自动接着进行",
    draining: "服务器即将关闭，正在完成进行中的回答",
    failed: "模型加载失败",
    stopped: "引擎已停止",
    unreachable: "无法连接到服务器",
    unauthorized: "需要 API 密钥",
    tryNow: "立即重试",
    unknown: "正在连接",
  },

  shortcuts: {
    title: "键盘快捷键",
    newChat: "新对话",
    search: "搜索对话",
    focus: "转到输入框",
    stop: "停止回答",
    menu: "显示或隐藏对话列表",
    help: "显示这个列表",
    send: "发送",
    line: "换行",
  },
};

function about(seconds: number): string {
  if (seconds < 90) return duration(Math.max(1, Math.round(seconds / 5) * 5));
  return seconds < 3600 ? `${number(seconds / 60)} 分钟` : duration(Math.round(seconds / 60) * 60);
}
