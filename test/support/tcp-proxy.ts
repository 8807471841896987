/** A network between two programs that can be made bad: it delays, swallows, half-closes and cuts, each way by itself. */
import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';

/** `up`: from the one that connects to the one that listens. */
export type Direction = 'up' | 'down';
const DIRECTIONS: readonly Direction[] = ['up', 'down'];

export interface TcpProxy extends AsyncDisposable {
  readonly port: number;
  /** Where new connections go. */
  target: number;
  /** Holds back what is on its way for so long. */
  delay(ms: number, directions?: readonly Direction[]): void;
  /** Takes what is sent and passes nothing on: the connection stays, and nobody is told. */
  drop(directions?: readonly Direction[]): void;
  /**
   * Holds back the answers to requests that look so: for so long, or, without an end, until it is mended. What else the
   * connection carries goes on.
   */
  delayAnswers(ms: number, requests: (bytes: Buffer) => boolean): void;
  /** Resolves once the next answer to a request that looks so has come by, and what is done to it has been decided. */
  nextAnswer(requests: (bytes: Buffer) => boolean): Promise<void>;
  /** Tells one side of the open connections that the other sends nothing more, while what it sends itself goes on. */
  halfClose(direction: Direction): void;
  /** Resets the open connections. New ones are accepted. */
  cut(): void;
  /**
   * Cuts, and accepts and resets what connects, until it is mended.
   * @param whose the connections that begin so; absent: all that suffer
   */
  sever(whose?: (firstBytes: Buffer) => boolean): void;
  /** Passes on again. What was swallowed stays lost, so the connections that lost something are reset. */
  mend(): void;
}

export interface ProxyOptions {
  /**
   * Whether a connection that begins with these bytes suffers; others always get through. So a server's clients can be
   * cut off while its own peers, who use the same address, are not. Absent: all do.
   */
  readonly suffers?: (firstBytes: Buffer) => boolean;
}

/** Starts a proxy on a free port of 127.0.0.1. */
export async function startProxy(target: number, { suffers = () => true }: ProxyOptions = {}): Promise<TcpProxy> {
  const pairs = new Set<Pair>();
  const waitingForAnswers = new Set<{ readonly requests: (bytes: Buffer) => boolean; readonly come: () => void }>();
  let fault: Fault = {};

  const server = createServer({ allowHalfOpen: true }, (near) => {
    const pair: Pair = { near, far: undefined, first: undefined, suffers: undefined, asked: undefined, lost: false };
    pairs.add(pair);
    near.setNoDelay(true);
    near.on('error', () => undefined);
    const end = () => {
      pairs.delete(pair);
      near.destroy();
      pair.far?.destroy();
    };
    near.once('close', end);
    near.once('data', (first) => {
      pair.first = first;
      pair.suffers = suffers(first);
      if (pair.suffers && fault.severed?.(first)) {
        near.resetAndDestroy();
        return;
      }
      const far = connect({ port: proxy.target, host: '127.0.0.1', allowHalfOpen: true }).setNoDelay(true);
      pair.far = far;
      far.on('error', () => undefined);
      far.once('close', end);
      forward(pair, near, far, 'up');
      forward(pair, far, near, 'down');
      near.emit('data', first);
    });
  });

  function forward(pair: Pair, from: Socket, to: Socket, direction: Direction): void {
    // One after the other: what is delayed is not overtaken.
    let last = Promise.resolve();
    const later = (pass: () => void) => {
      const ms = pair.suffers === true ? (fault.delayMs?.[direction] ?? 0) : 0;
      const due = ms > 0 ? new Promise<void>((resolve) => setTimeout(resolve, ms)) : undefined;
      const held = direction === 'down' ? holdFor(pair) : undefined;
      last = last.then(() => Promise.all([due, held])).then(pass);
    };
    from.on('data', (chunk: Buffer) => {
      if (pair.suffers && fault.dropped?.includes(direction)) {
        pair.lost = true;
        return;
      }
      if (direction === 'up') pair.asked = chunk;
      later(() => {
        if (!to.destroyed && !to.write(chunk)) {
          from.pause();
          to.once('drain', () => from.resume());
        }
      });
    });
    from.once('end', () => {
      if (pair.suffers && fault.dropped?.includes(direction)) pair.lost = true;
      else later(() => to.end());
    });
  }
  function holdFor({ asked }: Pair): Promise<void> | undefined {
    if (!asked) return undefined;
    const { late } = fault;
    const held = late?.requests(asked) ? late.begin() : undefined;
    for (const waiting of [...waitingForAnswers].filter(({ requests }) => requests(asked))) {
      waitingForAnswers.delete(waiting);
      waiting.come();
    }
    return held;
  }
  function reset(which: (pair: Pair) => boolean): void {
    for (const pair of pairs) {
      if (pair.suffers === false || !which(pair)) continue;
      pair.near.resetAndDestroy();
      pair.far?.resetAndDestroy();
    }
  }

  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const proxy: TcpProxy = {
    port: (server.address() as AddressInfo).port,
    target,
    delay(ms, directions = DIRECTIONS) {
      fault = { ...fault, delayMs: Object.fromEntries(directions.map((direction) => [direction, ms])) };
    },
    drop(directions = DIRECTIONS) {
      fault = { ...fault, dropped: directions };
    },
    delayAnswers(ms, requests) {
      const over = new AbortController();
      const begin = async () => {
        if (ms !== Number.POSITIVE_INFINITY) await sleep(ms, undefined, { signal: over.signal }).catch(() => undefined);
        else if (!over.signal.aborted) await once(over.signal, 'abort');
      };
      // What waits for the end of an earlier one goes on waiting for the end of all.
      const former = fault.late;
      over.signal.addEventListener('abort', () => former?.end());
      fault = { ...fault, late: { requests, begin, end: () => over.abort() } };
    },
    nextAnswer(requests) {
      return new Promise((come) => void waitingForAnswers.add({ requests, come }));
    },
    halfClose(direction) {
      for (const { near, far, suffers } of pairs) {
        if (suffers === true) (direction === 'up' ? far : near)?.end();
      }
    },
    cut() {
      reset(() => true);
    },
    sever(whose = () => true) {
      fault = { ...fault, severed: whose };
      reset(({ first }) => first !== undefined && whose(first));
    },
    mend() {
      fault.late?.end();
      fault = {};
      reset(({ lost }) => lost);
    },
    async [Symbol.asyncDispose]() {
      const closed = once(server, 'close');
      server.close();
      for (const { near, far } of pairs) {
        near.destroy();
        far?.destroy();
      }
      await closed;
    },
  };
  return proxy;
}

interface Pair {
  readonly near: Socket;
  far: Socket | undefined;
  first: Buffer | undefined;
  /** Unknown until its first bytes have come. */
  suffers: boolean | undefined;
  /** What the near side has sent last. */
  asked: Buffer | undefined;
  /** Something was swallowed. */
  lost: boolean;
}

interface Fault {
  readonly delayMs?: Partial<Record<Direction, number>>;
  readonly dropped?: readonly Direction[];
  readonly severed?: (firstBytes: Buffer) => boolean;
  readonly late?: {
    readonly requests: (bytes: Buffer) => boolean;
    /** Resolves when an answer that comes now may go on. */
    readonly begin: () => Promise<void>;
    readonly end: () => void;
  };
}
