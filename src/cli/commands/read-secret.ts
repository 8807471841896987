import { Writable } from 'node:stream';
import { createInterface } from 'node:readline/promises';

import { Secret } from '../../keys/secret.js';
import { exitCodes } from '../exit-codes.js';
import { CommandFault, UsageFault } from '../faults.js';
import type { Terminal } from '../terminal.js';

// Far more than any credential: the service answers what is too long to be one, and this only bounds the memory.
const INPUT_BYTES_MAX = 64 * 1024;

/**
 * Reads a secret from standard input: from a terminal one line, asked for and not echoed, else all of it, less the line
 * break at its end.
 * @throws UsageFault where there is nothing, or far too much
 */
export async function readSecret(terminal: Terminal, prompt: string): Promise<Secret> {
  const text = terminal.stdin.isTTY ? await ask(terminal, prompt) : await readAll(terminal.stdin);
  if (text === '') throw new UsageFault('nothing on standard input: give the credential there, as in … < key.txt');
  return new Secret(text);
}

async function readAll(stdin: NodeJS.ReadableStream): Promise<string> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of stdin) {
    const piece = Buffer.from(chunk);
    bytes += piece.length;
    if (bytes > INPUT_BYTES_MAX) throw new UsageFault('standard input holds more than a credential: over 64 KiB');
    chunks.push(piece);
  }
  return Buffer.concat(chunks)
    .toString('utf8')
    .replace(/\r?\n$/, '');
}

async function ask({ stdin, stderr }: Terminal, prompt: string): Promise<string> {
  // readline edits the line and echoes it to its output: nowhere.
  const nowhere = new Writable({ write: (_chunk, _encoding, done) => done() });
  const lines = createInterface({ input: stdin, output: nowhere, terminal: true, historySize: 0 });
  stderr.write(`${prompt}: `);
  try {
    return await new Promise<string>((resolve, reject) => {
      lines.once('SIGINT', () => reject(new CommandFault(exitCodes.interrupted, 'interrupted')));
      lines.once('close', () => resolve(''));
      lines.once('line', resolve);
    });
  } finally {
    lines.close();
    stderr.write('\n');
  }
}
