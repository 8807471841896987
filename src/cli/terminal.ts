import { OutputFault } from './faults.js';
import { printable } from './output/printable.js';

/** What a command reads from and writes to. Tests give their own. */
export interface Terminal {
  readonly stdin: NodeJS.ReadableStream & { readonly isTTY?: boolean };
  readonly stdout: NodeJS.WritableStream;
  readonly stderr: NodeJS.WritableStream & { readonly isTTY?: boolean };
  readonly env: NodeJS.ProcessEnv;
}

/**
 * Writes lines to standard output; resolves once they are handed over, so that a command that ends well has said all.
 * @throws OutputFault
 */
export async function print({ stdout }: Terminal, lines: string): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    stdout.write(`${printableLines(lines)}\n`, (error) => {
      if (error) reject(new OutputFault(error));
      else resolve();
    });
  });
}

/** Says something beside the output. Whether anyone reads it changes nothing. */
export function remark({ stderr }: Terminal, lines: string): void {
  stderr.write(`${printableLines(lines)}\n`);
}

function printableLines(lines: string): string {
  return lines.split('\n').map(printable).join('\n');
}
