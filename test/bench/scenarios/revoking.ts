/** Whether those who verify notice that other keys are revoked meanwhile. */
import { setTimeout as delay } from 'node:timers/promises';

import { startService } from '../../support/service.js';
import { type Bench, inRounds, type Scenario } from '../bench.js';
import { toUnaryTarget, verifyOne } from '../grpc-target.js';
import { type CreatedKey, createKey, revokeKey } from '../keys.js';
import { median, ratiosOf, type Section, toRatioText, toShort } from '../measured.js';

const REVOCATIONS_PER_SECOND = 10;

export const revoking: Scenario = {
  name: 'revoking',
  what: 'a key in memory while ten others are revoked each second, on SQLite',
  measure,
};

async function measure(bench: Bench): Promise<Section> {
  await using service = await startService();
  await bench.cores.pin(service.pid, 'server');
  const { token } = await createKey(service.keys, 'acme');
  const { load, probe } = await toUnaryTarget(service.keys, service.address, token);
  const quiet: number[] = [];
  const revoking: number[] = [];

  await inRounds(bench, 'revoking', [
    async (counts) => {
      await probe();
      const { perSecond } = await bench.h2load.peak(load, bench.seconds);
      if (counts) quiet.push(perSecond);
    },
    async (counts) => {
      await probe();
      const doomed: CreatedKey[] = [];
      for (let at = 0; at < bench.seconds * REVOCATIONS_PER_SECOND; at += 1) {
        const key = await createKey(service.keys, 'other');
        // It is in memory, too.
        await verifyOne(service.keys, key.token);
        doomed.push(key);
      }
      const beginMs = performance.now();
      const revocations = doomed.map(async (key, at) => {
        await delay(beginMs + (at * 1000) / REVOCATIONS_PER_SECOND - performance.now());
        return revokeKey(service.keys, key);
      });
      const [{ perSecond }, complete] = await Promise.all([
        bench.h2load.peak(load, bench.seconds),
        Promise.all(revocations),
      ]);
      if (complete.includes(false)) throw new Error('a revocation was not enforced when it was answered');
      if (counts) revoking.push(perSecond);
    },
  ]);

  return {
    title: 'While keys are revoked',
    text: `h2load as above, on one key in memory, while ${REVOCATIONS_PER_SECOND} others that are in memory are revoked each second, on SQLite.`,
    head: ['VerifyKey', 'calls a second', 'of those without revocations'],
    rows: [
      ['no revocations', toShort(median(quiet)), toRatioText(ratiosOf(quiet, quiet))],
      ['10 revocations a second', toShort(median(revoking)), toRatioText(ratiosOf(revoking, quiet))],
    ],
    goals: [],
    bars: [],
  };
}
