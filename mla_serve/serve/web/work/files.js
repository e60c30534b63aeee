// The files that are dropped or chosen to be scored: those of folders too.

const TABLE = /\.(csv|tsv|tab|jsonl|ndjson)$/i;
const HIDDEN = /(^|\/)[._]/; // files of the system, such as .DS_Store and __MACOSX

/** Whether a file's name is that of a table. */
export const isTable = name => TABLE.test(name);

/** Find the entries of a drop; only while its event is handled. */
export function entriesOf(transfer) {
  return [...transfer.items].map(item => item.webkitGetAsEntry?.()).filter(Boolean);
}

/** List the files of dropped entries, of folders too: [{path, file}]. */
export async function filesOfEntries(entries) {
  const listed = await Promise.all(entries.map(entry => (entry.isDirectory ? filesOfFolder(entry) : fileOf(entry))));
  return visible(listed.flat());
}

/** List the files that somebody chose: [{path, file}]. */
export function filesOfInput(files) {
  return visible([...files].map(file => ({ path: file.webkitRelativePath || file.name, file })));
}

function visible(files) {
  return files.filter(({ path }) => !HIDDEN.test(path)).sort((a, b) => (a.path < b.path ? -1 : 1));
}

async function filesOfFolder(folder) {
  const reader = folder.createReader();
  const entries = [];
  for (;;) {
    const some = await new Promise((done, failed) => reader.readEntries(done, failed)); // browsers give a hundred at a time
    if (!some.length) return filesOfEntries(entries);
    entries.push(...some);
  }
}

async function fileOf(entry) {
  const file = await new Promise((done, failed) => entry.file(done, failed));
  return { path: entry.fullPath.replace(/^\//, ""), file };
}
