/**
 * Processes and folders that must not outlive the test run. They are listed with a small process of their own
 * (`guard.mjs`), because a handler in this process would not run after SIGKILL, and vitest ends at once, without
 * calling the teardown of its global setup, on SIGINT and SIGTERM.
 */
import { spawn } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { Socket } from 'node:net';
import { fileURLToPath } from 'node:url';
import type { Writable } from 'node:stream';

type Guarded = { pid: number } | { folder: string };

/** Ends the process, or removes the folder, when this process is gone and `release` was not called before. */
export function guard(guarded: Guarded): { release(): void } {
  const tell = (verb: 'add' | 'delete') => {
    toGuard ??= startGuard();
    toGuard.write(`${JSON.stringify({ verb, ...guarded })}\n`);
  };
  tell('add');
  return { release: () => tell('delete') };
}

export interface GuardedFolder extends AsyncDisposable {
  path: string;
}

/** Makes a new, empty folder, which goes when it is disposed or with this process. */
export async function makeGuardedFolder(prefix: string): Promise<GuardedFolder> {
  const path = await mkdtemp(prefix);
  const guarded = guard({ folder: path });
  return {
    path,
    async [Symbol.asyncDispose]() {
      await rm(path, { recursive: true, force: true, maxRetries: 20, retryDelay: 50 });
      guarded.release();
    },
  };
}

let toGuard: Writable | undefined;

function startGuard(): Writable {
  // Detached: Ctrl-C in a terminal, or a SIGKILL to the run's whole process group, must not reach the guard.
  const child = spawn(process.execPath, [fileURLToPath(new URL('guard.mjs', import.meta.url))], {
    detached: true,
    stdio: ['pipe', 'ignore', 'ignore'],
  });
  child.unref();
  // A worker of vitest would go on to the end of its test, however long, after vitest itself is gone.
  process.once('disconnect', () => process.exit(1));
  if (child.stdin instanceof Socket) child.stdin.unref();
  return child.stdin;
}
