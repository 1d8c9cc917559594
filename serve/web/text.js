// text.js: every word of the page, in English and Chinese, and the tasks behind the buttons.
const words = {
  en: {
    skip: 'Skip to the question', history: 'History', language: 'Language / 语言: switch to Chinese',
    theme: 'Light or dark', newChat: 'New conversation', historyNote: 'Kept in this browser only.',
    clearHistory: 'Delete all', conversation: 'Conversation', welcome: 'Drop a picture here and ask about it',
    sample: 'Try a sample picture', picturesToSend: 'Pictures to send', tasks: 'Tasks',
    addPicture: 'Add pictures', camera: 'Camera', question: 'Question',
    placeholder: 'Ask something about the picture… (paste works too)', send: 'Send', stop: 'Stop',
    resolution: 'Resolution', creativity: 'Randomness', length: 'Longest answer',
    dropHere: 'Drop pictures here', snap: 'Take picture', close: 'Close', you: 'You',
    auto: 'as configured', fast: 'fast', balanced: 'balanced', ocr: 'small print', ground: 'boxes',
    tokens: 'tokens', about: 'about', toFirst: 'to the first word', measuring: 'looking…',
    turned: 'turned upright (EXIF {0})', resized: '{0}×{1} → {2}×{3}', remove: 'Remove', earlier: 'Move left',
    later: 'Move right', converted: 'converted in the browser', encode: 'Looking at picture {0}: block {1} of {2}',
    prefill: 'Reading the question: {0} of {1}', waiting: 'Waiting for the engine…', stopped: 'stopped',
    regenerate: 'Again', copy: 'Copy', copied: 'Copied', asCurl: 'curl', asPython: 'Python',
    probabilities: 'Probabilities', timings: 'Where the time went', done: 'What was done to the picture',
    finish: 'Finished', finish_length: 'stopped at the longest answer', finish_repetition: 'stopped: it began to repeat itself',
    failed: 'That did not work', retryIn: 'try again in {0} s', unreachable: 'The server cannot be reached.',
    tooMany: 'At most {0} pictures.', unreadable: '{0} is no picture that this browser or the server can read.',
    queue: 'queue', decode: 'open picture', resize: 'resize', vit: 'look (vision)', read: 'read prompt',
    write: 'write answer', cached: 'from the cache', perSecond: 'tokens/s', fromCache: 'the picture was already encoded',
    noCamera: 'No camera is available.', answered: 'Answer finished.', thousandths: 'Boxes: thousandths → pixels',
    noticeDemo: 'Loaded: the bundled demo model, {0} million parameters. It is tiny and was trained on drawn pictures: it reads short printed text, names simple shapes and colours and small charts. It will be wrong about photographs; load a real Qwen3-VL checkpoint for those.',
    notice: 'Loaded: {0}, {1} million parameters, on {2} ({3}). Its answers can be wrong: check what matters.',
    pickToken: 'Point at a word, tap it or use ← →: how probable it was, and what else could have stood there.',
    onPicture: 'Picture {0}: {1}', boxesAsJson: 'Boxes as JSON', guessed: '(the answer does not say which picture; the last is assumed)',
    modelTitle: 'What is loaded', drop: 'Delete', untitled: 'Picture',
  },
  zh: {
    skip: '跳到提问框', history: '历史', language: '语言 / Language: switch to English', theme: '浅色或深色',
    newChat: '新对话', historyNote: '只保存在这个浏览器里。', clearHistory: '全部删除', conversation: '对话',
    welcome: '把图片拖到这里，然后提问', sample: '试一张示例图片', picturesToSend: '要发送的图片', tasks: '任务',
    addPicture: '添加图片', camera: '相机', question: '问题', placeholder: '关于图片，想问什么？（也可以直接粘贴图片）',
    send: '发送', stop: '停止', resolution: '分辨率', creativity: '随机性', length: '最长回答',
    dropHere: '把图片放到这里', snap: '拍照', close: '关闭', you: '你', auto: '默认', fast: '快速',
    balanced: '均衡', ocr: '小字', ground: '定位', tokens: '个 token', about: '约', toFirst: '后出现第一个字',
    measuring: '正在查看…', turned: '已转正（EXIF {0}）', resized: '{0}×{1} → {2}×{3}', remove: '移除',
    earlier: '前移', later: '后移', converted: '已由浏览器转换', encode: '正在看第 {0} 张图：第 {1} 层，共 {2} 层',
    prefill: '正在读问题：{0} / {1}', waiting: '正在等待引擎…', stopped: '已停止', regenerate: '重新回答', copy: '复制',
    copied: '已复制', asCurl: 'curl', asPython: 'Python', probabilities: '概率', timings: '时间用在哪里',
    done: '对图片做了什么', finish: '完成', finish_length: '到达最长回答', finish_repetition: '已停止：开始重复',
    failed: '没有成功', retryIn: '{0} 秒后再试', unreachable: '连不上服务器。', tooMany: '最多 {0} 张图片。',
    unreadable: '{0} 不是浏览器或服务器能读取的图片。', queue: '排队', decode: '打开图片', resize: '缩放',
    vit: '看图（视觉）', read: '读提示', write: '写回答', cached: '来自缓存', perSecond: 'token/秒',
    fromCache: '图片已编码过', noCamera: '没有可用的相机。', answered: '回答完毕。', thousandths: '方框：千分比 → 像素',
    noticeDemo: '已加载：自带的演示模型，{0} 百万参数。它很小，只用绘制的图片训练：能读短的印刷文字，认简单的形状、颜色和小图表。对照片它会答错；请加载真正的 Qwen3-VL 模型。',
    notice: '已加载：{0}，{1} 百万参数，运行在 {2}（{3}）。回答可能有错，重要的内容请核对。',
    pickToken: '指向、点按或用 ← → 选一个词：它的概率，以及其他可能的词。',
    onPicture: '图片 {0}：{1}', boxesAsJson: '方框 JSON', guessed: '（回答没有说明是哪张图，按最后一张处理）',
    modelTitle: '加载的模型', drop: '删除', untitled: '图片',
  },
};

export const tasks = [
  { id: 'describe', en: 'Describe', zh: '描述', ask: { en: 'Describe what you see in this image.', zh: '请描述这张图。' } },
  { id: 'read', en: 'Read text', zh: '读文字', preset: 'ocr', ask: { en: 'Read the text.', zh: '图片里写了什么？' } },
  { id: 'table', en: 'Table → CSV', zh: '表格 → CSV', preset: 'ocr', ask: { en: 'Write the table in this picture as CSV.', zh: '把图中的表格写成 CSV。' } },
  { id: 'find', en: 'Find objects', zh: '找物体', preset: 'ground', ask: {
    en: 'Locate all objects and output their bounding boxes in JSON format.',
    zh: '请找到所有物体，用JSON格式输出边框。' } },
  { id: 'chart', en: 'Read chart', zh: '看图表', ask: { en: 'What does this chart show?', zh: '这张图表说明了什么？' } },
];

let language = 'en';
export const lang = () => language;

export function t(key, ...args) {
  const text = words[language][key] ?? words.en[key] ?? key;
  return text.replace(/\{(\d)\}/g, (_, i) => args[i]);
}

export function setLanguage(code) {
  language = code in words ? code : 'en';
  document.documentElement.lang = language === 'zh' ? 'zh-CN' : 'en';
  for (const e of document.querySelectorAll('[data-t]')) e.textContent = t(e.dataset.t);
  for (const e of document.querySelectorAll('[data-label]')) {
    e.setAttribute('aria-label', t(e.dataset.label));
    if (e.tagName === 'BUTTON') e.title = t(e.dataset.label);
  }
  for (const e of document.querySelectorAll('[data-placeholder]')) e.placeholder = t(e.dataset.placeholder);
}
