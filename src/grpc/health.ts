import type { handleServerStreamingCall, Server } from '@grpc/grpc-js';
import { HealthImplementation } from 'grpc-health-check';
import { setTimeout as sleep } from 'node:timers/promises';

import { type Clock, Deadline } from '../keys/clock.js';
import type { Log } from '../log.js';
import type { Store } from '../store/port.js';

/** Tells by `grpc.health.v1` that the process is up (`''`) and that it can answer (`keyreeve.v1.KeyService`). */
export interface Health extends AsyncDisposable {
  addToServer(server: Pick<Server, 'addService'>): void;
  /** Whether calls can be answered, as it was last found. */
  isReady(): boolean;
  /** For good: both are down from now on. */
  notServing(): void;
}

const PROCESS = '';
const KEY_SERVICE = 'keyreeve.v1.KeyService';

const PING_MS_MAX = 2000;
const REST_MS = 5000;
/** A store that is back is to be used soon. */
const REST_MS_WHILE_DOWN = 1000;

/** Asks the store from time to time whether it could answer; resolves when it has asked once. */
export async function startHealth(store: Pick<Store, 'ping'>, clock: Clock, log: Log): Promise<Health> {
  const health = new HealthImplementation({ [PROCESS]: 'SERVING', [KEY_SERVICE]: 'UNKNOWN' });
  const over = new AbortController();
  let wasUp = true;

  async function look(): Promise<void> {
    const fault = await faultOf(store, clock);
    if (over.signal.aborted) return;
    const isUp = fault === undefined;
    if (!isUp && wasUp) log.warn({ err: fault }, 'the store does not answer');
    if (isUp && !wasUp) log.info('the store answers again');
    wasUp = isUp;
    health.setStatus(KEY_SERVICE, isUp ? 'SERVING' : 'NOT_SERVING');
  }
  async function lookOn(): Promise<void> {
    while (true) {
      const restMs = wasUp ? REST_MS : REST_MS_WHILE_DOWN;
      const rested = await sleep(restMs, true, { signal: over.signal }).catch(() => false);
      if (!rested) return;
      await look();
    }
  }
  function notServing(): void {
    over.abort();
    health.setStatus(PROCESS, 'NOT_SERVING');
    health.setStatus(KEY_SERVICE, 'NOT_SERVING');
  }

  await look();
  const looking = lookOn();
  return {
    addToServer: (server) =>
      health.addToServer({
        addService: (service, calls) =>
          server.addService(service, { ...calls, watch: watchKnown(calls.watch as Watch) }),
      }),
    isReady: () => wasUp && !over.signal.aborted,
    notServing,
    async [Symbol.asyncDispose]() {
      notServing();
      await looking;
    },
  };
}

async function faultOf(store: Pick<Store, 'ping'>, clock: Clock): Promise<unknown> {
  try {
    await store.ping(Deadline.after(PING_MS_MAX, clock));
    return undefined;
  } catch (error) {
    return error ?? new Error('the store said nothing about its fault');
  }
}

type Watch = handleServerStreamingCall<{ service: string }, { status: string }>;

/**
 * The library's Watch, but for the services that exist alone: it remembers for ever each name that anyone watches, and
 * health asks for no token. An unknown service is answered as the protocol says, and its stream stays open.
 */
function watchKnown(watch: Watch): Watch {
  return (call) => {
    const { service } = call.request;
    if (service === PROCESS || service === KEY_SERVICE) watch(call);
    else call.write({ status: 'SERVICE_UNKNOWN' });
  };
}
