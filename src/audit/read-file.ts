import { open } from 'node:fs/promises';

import type { Entry } from './verify-chain.js';

const NEWLINE = 0x0a;

/**
 * An audit file's lines, up to where the file ends when that is reached.
 * @param range offsets where a line begins and one ends; positions tell offsets then, since lines are counted from the
 *   file's beginning
 * @throws the system's error where it cannot be read
 */
export async function* readAuditFile(path: string, range?: { start: number; end: number }): AsyncGenerator<Entry> {
  if (range && range.start === range.end) return;
  await using file = await open(path, 'r');
  const size = range ? range.end - range.start : (await file.stat()).size;
  const skipped = range?.start ?? 0;
  const positionOf = (line: number, offset: number) =>
    skipped === 0 ? `line ${line}` : `the line at byte ${skipped + offset}`;
  let rest: Buffer = Buffer.alloc(0);
  let line = 0;
  let bytes = 0;
  for await (const chunk of file.createReadStream({
    autoClose: false,
    highWaterMark: 1 << 20,
    ...(range && { start: range.start, end: range.end - 1 }),
  }) as AsyncIterable<Buffer>) {
    const buffer = rest.length > 0 ? Buffer.concat([rest, chunk]) : chunk;
    let start = 0;
    // By bytes, not by characters: some that other line readers break at may stand within an event.
    for (let end = buffer.indexOf(NEWLINE); end !== -1; end = buffer.indexOf(NEWLINE, start)) {
      line += 1;
      const text = buffer.toString('utf8', start, end);
      const position = positionOf(line, bytes + start);
      start = end + 1;
      yield { text, position, share: Math.min(1, (bytes + start) / size) };
    }
    bytes += start;
    rest = buffer.subarray(start);
  }
  if (rest.length > 0) yield { text: rest.toString('utf8'), position: positionOf(line + 1, bytes), partial: true };
}
