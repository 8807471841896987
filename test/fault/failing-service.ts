/**
 * The service with faults in the places of its parts: it ends itself with SIGKILL where it is told to, or sets its
 * clock. A line on stdin is an `Order`. It is configured and stopped like the service itself.
 */
import process from 'node:process';
import { createInterface } from 'node:readline';

import type { Outbox } from '../../src/audit/outbox.js';
import { type AuditSink, SinkFault } from '../../src/audit/sink.js';
import { loadConfig } from '../../src/config/load.js';
import { formatProblem } from '../../src/config/problems.js';
import { isEmpty } from '../../src/keys/change.js';
import { type Clock, systemClock } from '../../src/keys/clock.js';
import { isRefusal } from '../../src/keys/refusal.js';
import { assembly, start } from '../../src/main.js';
import { StoreFault } from '../../src/store/faults.js';
import type { Following, Store } from '../../src/store/port.js';
import type { FailPoint, Order } from './fail-points.js';

const armed = new Map<FailPoint, number>();
let offsetMs = 0;
let storeBackMs = Number.NEGATIVE_INFINITY;
let sinkBackMs = Number.NEGATIVE_INFINITY;

createInterface({ input: process.stdin }).on('line', (line) => {
  obey(JSON.parse(line) as Order);
});
// A service with nothing left to do ends, whoever could still give it an order.
process.stdin.unref();

function obey(order: Order): void {
  switch (order.order) {
    case 'die':
      armed.set(order.at, order.nth);
      break;
    case 'clock':
      ({ offsetMs } = order);
      break;
    case 'store-away':
      storeBackMs = performance.now() + order.ms;
      break;
    case 'sink-fails':
      sinkBackMs = performance.now() + order.ms;
      break;
  }
}

const config = await loadConfig(process.env);
if (Array.isArray(config)) throw new Error(config.map(formatProblem).join('\n'));
const clock: Clock = { ...systemClock, now: () => new Date(Date.now() + offsetMs) };
await start(config, {
  clock,
  openStore: async (...given) => failingStore(await assembly.openStore(...given)),
  openSink: async (...given) => failingSink(await assembly.openSink(...given)),
});

function passes(point: FailPoint): void {
  const left = armed.get(point);
  if (left === undefined) return;
  if (left <= 1) process.kill(process.pid, 'SIGKILL');
  armed.set(point, left - 1);
}

function failingStore(store: Store): Store {
  const outbox = failingOutbox(store.outbox);
  return withOthers<Store>(store, {
    async change(load, rule, deadline) {
      checkStore();
      const seen = { writes: false };
      const answer = await store.change(
        load,
        (state) => {
          const decided = rule(state);
          seen.writes = !isRefusal(decided) && !isEmpty(decided);
          if (seen.writes) passes('before-commit');
          return decided;
        },
        deadline,
      );
      if (seen.writes) passes('before-answer');
      return answer;
    },
    async findByDigest(...given) {
      checkStore();
      return store.findByDigest(...given);
    },
    follow(follower) {
      const following = store.follow(follower);
      return withOthers<Following>(following, {
        async read(...given) {
          checkStore();
          return following.read(...given);
        },
      });
    },
    outbox,
  });
}

function checkStore(): void {
  if (performance.now() < storeBackMs) throw new StoreFault('unavailable', 'the test has taken the store away');
}

function failingOutbox(outbox: Outbox): Outbox {
  return withOthers<Outbox>(outbox, {
    async replaceLeadership(expected, next) {
      const replaced = await outbox.replaceLeadership(expected, next);
      if (replaced) passes('while-leading');
      return replaced;
    },
  });
}

function failingSink<Sink extends AuditSink>(sink: Sink): Sink {
  return withOthers<AuditSink, Sink>(sink, {
    async publish(lane, events, timeoutMs) {
      const fails = performance.now() < sinkBackMs;
      if (fails || armed.get('within-batch') === 1) {
        const half = events.slice(0, Math.floor(events.length / 2));
        if (half.length > 0) await sink.publish(lane, half, timeoutMs);
      }
      passes('within-batch');
      if (fails) throw new SinkFault('unavailable', 'the test lets the sink fail');
      const end = await sink.publish(lane, events, timeoutMs);
      passes('before-mark');
      return end;
    },
  });
}

/** The part, with others in the places of some of its members, whatever else it has. */
function withOthers<T extends object, Part extends T = T>(part: Part, others: Partial<NoInfer<T>>): Part {
  return new Proxy(part, {
    get(_, name) {
      if (name in others) return Reflect.get(others, name) as unknown;
      const member = Reflect.get(part, name) as unknown;
      return typeof member === 'function' ? (member.bind(part) as unknown) : member;
    },
  });
}
