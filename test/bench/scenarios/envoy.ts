/** What the check adds to a request through Envoy, beside a check that always says yes and beside none. */
import { credentials } from '@grpc/grpc-js';

import {
  AuthorizationClient,
  CheckRequest,
  CheckResponse,
} from '../../../src/gen/envoy/service/auth/v3/external_auth.js';
import { call } from '../../support/call.js';
import { startEnvoy } from '../../support/envoy.js';
import { startService } from '../../support/service.js';
import { type Arm, type Bench, inRounds, type Scenario } from '../bench.js';
import type { LoadTarget } from '../h2load.js';
import { createKey } from '../keys.js';
import { median, ratiosOf, type Section, toMsText, toRatioText, toShort } from '../measured.js';
import { Opened } from '../opened.js';
import { startProgram } from '../programs.js';
import { quantile } from '../report.js';

const KEYSPACE = 'hygiara';

export const envoy: Scenario = {
  name: 'envoy',
  what: 'requests through Envoy: with the check, with one that always says yes, and with none',
  measure,
};

interface Target {
  readonly what: string;
  readonly load: LoadTarget;
}

/** One figure a round. */
class Figures {
  readonly perSecond: number[] = [];
  readonly oneP50: number[] = [];
  readonly oneP99: number[] = [];
}

async function measure(bench: Bench): Promise<Section> {
  await using stack = new Opened();
  const targets = await openTargets(bench, stack);
  const figures = new Map<Target, Figures>(targets.map((target) => [target, new Figures()]));
  const arms = targets.map((target): Arm => async (counts) => {
    const { perSecond } = await bench.h2load.peak(target.load, bench.seconds);
    const { ms } = await bench.h2load.oneInFlight(target.load, bench.seconds);
    if (!counts) return;
    const measured = figures.get(target);
    measured?.perSecond.push(perSecond);
    measured?.oneP50.push(quantile(ms, 0.5));
    measured?.oneP99.push(quantile(ms, 0.99));
  });
  await inRounds(bench, 'envoy', arms);
  return toSection(targets, figures);
}

const NONE = 'no check';
const YES = 'a check that always says yes';
const KEYREEVE = 'Keyreeve';

async function openTargets(bench: Bench, stack: Opened): Promise<readonly [Target, Target, Target]> {
  const { cores } = bench;
  const service = stack.use(await startService());
  await cores.pin(service.pid, 'server');
  const { token } = await createKey(service.keys, 'acme');
  const answer = await answerTo(service.address, token);
  const { told } = stack.use(
    await startProgram<{ port: number }>(cores, 'server', 'servers/yes.mjs', [answer.toString('base64')]),
  );

  const open = async (what: string, address: string, change = (example: string) => example): Promise<Target> => {
    // Envoy answers by itself, so that no upstream is measured with it.
    const own = stack.use(await startEnvoy(address, (example) => answeringItself(change(example))));
    await cores.pin(own.pid, 'load');
    const { status, body } = await own.get(KEYSPACE, [`x-api-key: ${token}`]);
    if (status !== 200) throw new Error(`${what}: Envoy answers ${status}`);
    const url = `http://127.0.0.1:${own.ports[KEYSPACE] ?? 0}/`;
    return { what, load: { url, headers: [`x-api-key: ${token}`], answerBytes: body.length } };
  };
  return [
    await open(NONE, service.address, withoutCheck),
    await open(YES, `127.0.0.1:${told.port}`),
    await open(KEYREEVE, service.address),
  ];
}

/** As sent to Envoy for a request with this key. */
async function answerTo(address: string, token: string): Promise<Buffer> {
  const client = new AuthorizationClient(address, credentials.createInsecure());
  const http = { headers: new Map([['x-api-key', token]]) };
  const contextExtensions = new Map([['keyspace', KEYSPACE]]);
  const request = CheckRequest.fromPartial({ attributes: { contextExtensions, request: { http } } });
  try {
    const response = await call<CheckResponse>((done) => client.check(request, done));
    if (response.httpResponse?.$case !== 'okResponse') throw new Error('the check does not let the key in');
    return Buffer.from(CheckResponse.encode(response).finish());
  } finally {
    client.close();
  }
}

function answeringItself(example: string): string {
  return example.replace(
    'route: { cluster: upstream }',
    "direct_response: { status: 200, body: { inline_string: 'ok' } }",
  );
}

function withoutCheck(example: string): string {
  return example.replaceAll(/check_settings: .*$/gm, 'disabled: true');
}

function toSection(
  [none, yes, own]: readonly [Target, Target, Target],
  figures: ReadonlyMap<Target, Figures>,
): Section {
  const of = (target: Target) => figures.get(target) ?? new Figures();
  const added = (target: Target, which: 'oneP50' | 'oneP99') =>
    of(target)[which].map((ms, round) => ms - (of(none)[which][round] ?? Number.NaN));
  const addedText = (target: Target, which: 'oneP50' | 'oneP99') =>
    target === none ? '–' : toShort(median(added(target, which)) * 1000);
  return {
    title: 'Behind Envoy',
    text:
      'The example’s Envoy, with one thread, answers the request itself once the check has let it in. h2load asks by ' +
      'HTTP/1.1 with a key that is in memory: one request at a time, and on 64 connections. The check that always says ' +
      'yes is grpc-js with the service’s settings; it answers Keyreeve’s own bytes and reads nothing. Added is what a ' +
      'request takes more than without a check, in the same round. ' +
      `Added at p50, Keyreeve beside the check that says yes: ${toRatioText(ratiosOf(added(own, 'oneP50'), added(yes, 'oneP50')))} times.`,
    head: ['check', 'p50 ms', 'p99 ms', 'added p50 µs', 'added p99 µs', 'requests a second'],
    rows: [none, yes, own].map((target) => [
      target.what,
      toMsText(of(target).oneP50),
      toMsText(of(target).oneP99),
      addedText(target, 'oneP50'),
      addedText(target, 'oneP99'),
      toShort(median(of(target).perSecond)),
    ]),
    goals: [],
    bars: [],
  };
}
