import { setTimeout as delay } from 'node:timers/promises';

import { runCommand } from './run-command.js';

/**
 * Makes a process hang (SIGSTOP). Resolves once each of its threads has stopped: the signal alone is on its way only,
 * and on a busy machine the process still answers for a while.
 */
export async function pause(pid: number | undefined): Promise<void> {
  process.kill(running(pid), 'SIGSTOP');
  for (;;) {
    const { stdout } = await runCommand('ps', ['-L', '-o', 'state=', '-p', String(pid)]);
    const states = stdout.split('\n').filter((state) => state !== '');
    if (states.every((state) => state.trim() === 'T')) return;
    await delay(5);
  }
}

/** Lets it go on. */
export function resume(pid: number | undefined): void {
  process.kill(running(pid), 'SIGCONT');
}

function running(pid: number | undefined): number {
  // 0 would be this test's own group.
  if (pid === undefined) throw new Error('there is no such process');
  return pid;
}
