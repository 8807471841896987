import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';
import { fileURLToPath, pathToFileURL } from 'node:url';

import { guard } from './guard.js';
import type { StorePlace } from './open-store.js';
import type { Outcome } from './store-process.js';

const require = createRequire(import.meta.url);
const TSX = pathToFileURL(require.resolve('tsx')).href;
const PROGRAM = fileURLToPath(new URL('store-process.ts', import.meta.url));

/** What each lineage's budget comes to, and what is taken of it. */
export const CHILDS_BUDGET = { windowMs: 3_600_000, limit: 1000, want: 3 };

export interface StoreProcess extends AsyncDisposable {
  readonly pid: number;
  tell(order: 'changeForever'): void;
  /** What it says next; the rest of what it said before it ended comes first. */
  hear(): Promise<Outcome | undefined>;
  /** Tells it one thing and hears the outcome. */
  ask(order: 'create' | 'list' | 'ping'): Promise<Outcome | undefined>;
  /** SIGKILL, and waits until it is gone. */
  kill(): Promise<void>;
}

/**
 * Starts a process that opens the store; the first thing it says is whether it could.
 * @param under a command to start it with, such as one that limits it
 */
export function startStoreProcess(place: StorePlace, under: readonly string[] = []): StoreProcess {
  const [command, ...args] = [...under, process.execPath, '--import', TSX, PROGRAM, JSON.stringify(place)];
  const child = spawn(command, args, { stdio: ['pipe', 'pipe', 'inherit'] });
  const { pid } = child;
  if (pid === undefined) throw new Error(`${command} cannot be started`);
  const guarded = guard({ pid });
  const ended = once(child, 'close');
  const said = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  // It may be gone before it has read everything.
  child.stdin.on('error', () => undefined);

  const tell = (order: string) => void child.stdin.write(`${order}\n`);
  const hear = async () => {
    const line = await said.next();
    return line.done === true ? undefined : (JSON.parse(line.value) as Outcome);
  };
  return {
    pid,
    tell,
    hear,
    ask(order) {
      tell(order);
      return hear();
    },
    async kill() {
      child.kill('SIGKILL');
      await ended;
    },
    async [Symbol.asyncDispose]() {
      child.kill('SIGKILL');
      await ended;
      guarded.release();
    },
  };
}
