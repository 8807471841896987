const LINE_FEED = 0x0a;
const NOTHING = Buffer.alloc(0);

/** One line of a file, without its line feed. */
export interface Line {
  /** From 1. */
  readonly number: number;
  /** Undefined where the line is longer than what may be held. */
  readonly bytes: Buffer | undefined;
  /** How many bytes of the file end with it. */
  readonly endByte: number;
}

/** The lines one by one, as they are asked for; one longer than `lineBytesMax` is counted and not held. */
export async function* readLines(
  chunks: AsyncIterable<Buffer | string>,
  lineBytesMax: number,
): AsyncGenerator<Line, void> {
  let number = 0;
  let endByte = 0;
  let begun = { bytes: NOTHING, length: 0 };
  const append = (piece: Buffer): void => {
    const length = begun.length + piece.length;
    begun = { bytes: length > lineBytesMax ? NOTHING : Buffer.concat([begun.bytes, piece]), length };
  };
  const end = (breakBytes: number): Line => {
    number += 1;
    endByte += begun.length + breakBytes;
    const { bytes, length } = begun;
    begun = { bytes: NOTHING, length: 0 };
    return { number, bytes: length > lineBytesMax ? undefined : bytes, endByte };
  };
  for await (const chunk of chunks) {
    let rest = typeof chunk === 'string' ? Buffer.from(chunk) : chunk;
    for (let at = rest.indexOf(LINE_FEED); at >= 0; at = rest.indexOf(LINE_FEED)) {
      append(rest.subarray(0, at));
      yield end(1);
      rest = rest.subarray(at + 1);
    }
    append(rest);
  }
  if (begun.length > 0) yield end(0);
}
