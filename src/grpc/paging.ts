import { type ArgumentRefusal, refuseArgument } from '../keys/refusal.js';

const PAGE_SIZE_DEFAULT = 50;
const PAGE_SIZE_MAX = 500;
const PAGE_BYTES_MAX = 1024 * 1024;

export function parsePageSize(size: number): number | ArgumentRefusal {
  if (size < 0) {
    return refuseArgument(
      'PAGE_SIZE_INVALID',
      'page_size',
      `page_size must be 0 (${PAGE_SIZE_DEFAULT} rows) or more; more than ${PAGE_SIZE_MAX} counts as ${PAGE_SIZE_MAX}`,
    );
  }
  return size === 0 ? PAGE_SIZE_DEFAULT : Math.min(size, PAGE_SIZE_MAX);
}

/**
 * Fills a page up to its size in rows and in bytes. It holds one row at least, so that a listing always goes on.
 * @param rows one more than the page's size, where there are so many: it tells that another page follows
 * @returns the page, and the row to go on after where any is left
 */
export function fillPage<Row, Message>(
  rows: readonly Row[],
  pageSize: number,
  toMessage: (row: Row) => { message: Message; bytes: number },
): { messages: Message[]; goOnAfter?: Row } {
  const messages: Message[] = [];
  let bytesTotal = 0;
  let last: Row | undefined;
  for (const row of rows) {
    if (last !== undefined && messages.length === pageSize) return { messages, goOnAfter: last };
    const { message, bytes } = toMessage(row);
    bytesTotal += bytes;
    if (last !== undefined && bytesTotal > PAGE_BYTES_MAX) return { messages, goOnAfter: last };
    messages.push(message);
    last = row;
  }
  return { messages };
}
