/**
 * Two servers that are asked at the same time, and run by turns. The machine's speed may be another one within a second:
 * the turns are so short that both get the same of it. One that waits keeps its load, so that nothing begins anew.
 */
import { setTimeout as delay } from 'node:timers/promises';

import { pause, resume } from '../support/pause.js';
import type { H2load, LoadTarget } from './h2load.js';

export interface Running {
  readonly pid: number;
  readonly load: LoadTarget;
}

const TURN_MS = 100;

/**
 * Calls a second of each at its peak, while it runs.
 * @param seconds of each
 */
export async function peaksByTurns(
  h2load: H2load,
  servers: readonly [Running, Running],
  seconds: number,
): Promise<[number, number]> {
  for (const { pid } of servers) await pause(pid);
  // So many whole turns: one has as much as the other, whenever in a turn the load begins.
  const lastsSeconds = (2 * Math.ceil((seconds * 1000) / TURN_MS) * TURN_MS) / 1000;
  const over = new AbortController();
  const turns = takeTurns(servers, over.signal);
  try {
    const [one, other] = await Promise.all([
      h2load.peak(servers[0].load, lastsSeconds),
      h2load.peak(servers[1].load, lastsSeconds),
    ]);
    return [one.perSecond * 2, other.perSecond * 2];
  } finally {
    over.abort();
    await turns;
  }
}

/** Lets one after the other run, and in the end all of them. */
async function takeTurns(servers: readonly Running[], over: AbortSignal): Promise<void> {
  try {
    for (let at = 0; !over.aborted; at += 1) {
      const pid = servers[at % servers.length]?.pid;
      resume(pid);
      await delay(TURN_MS);
      if (pid !== undefined) process.kill(pid, 'SIGSTOP');
    }
  } finally {
    for (const { pid } of servers) resume(pid);
  }
}
