/** Load from h2load, the load generator of nghttp2 (Debian: nghttp2-client): one request, again and again. */
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { runCommand } from '../support/run-command.js';

export interface LoadTarget {
  readonly url: string;
  readonly headers: readonly string[];
  /** What is posted; absent: the target is asked by HTTP/1.1 and GET. */
  readonly body?: Buffer;
  /** Of an answer's body: by it is seen that all were of the kind that one was seen to be. */
  readonly answerBytes: number;
}

export interface Peak {
  readonly perSecond: number;
}

export interface OneInFlight {
  /** Of each call. */
  readonly ms: readonly number[];
}

/** In flight in both: 8 connections of 8 streams, or 64 connections. */
const STREAMED = ['-c', '8', '-m', '8'];
const UNSTREAMED = ['-c', '64'];
// Calls that are under way at the end have headers and no body yet, or the other way round.
const INCOMPLETE_MAX = 64;
const CALLS_MIN = 10;
const SECONDS_MAX = 60;

export class H2load {
  readonly #folder: string;
  #runs = 0;

  /** @param folder where requests and times are put */
  constructor(folder: string) {
    this.#folder = folder;
  }

  async peak(target: LoadTarget, seconds: number): Promise<Peak> {
    const output = await this.#run(target, target.body ? STREAMED : UNSTREAMED, seconds);
    return { perSecond: Number(matched(output, /finished in [^,]+, ([\d.]+) req\/s/)) };
  }

  async oneInFlight(target: LoadTarget, seconds: number): Promise<OneInFlight> {
    const log = join(this.#folder, `times-${(this.#runs += 1)}`);
    await this.#run(target, ['-c', '1', '-m', '1', `--log-file=${log}`], seconds);
    // Each line: when it began, in microseconds; the status; how long it took, in microseconds.
    const lines = (await readFile(log, 'utf8')).split('\n').filter((line) => line !== '');
    // A server may be so slow that it has answered next to none.
    if (lines.length < CALLS_MIN && seconds < SECONDS_MAX) return this.oneInFlight(target, seconds * 2);
    return { ms: lines.map((line) => Number(line.split('\t')[2]) / 1000) };
  }

  /** @throws Error unless all answers were good */
  async #run({ url, headers, body, answerBytes }: LoadTarget, shape: readonly string[], seconds: number) {
    const posted: string[] = [];
    if (body) {
      const path = join(this.#folder, `body-${(this.#runs += 1)}`);
      await writeFile(path, body, { mode: 0o600 });
      posted.push('-d', path);
    } else posted.push('--h1');
    const asked = headers.flatMap((header) => ['-H', header]);
    const how = ['-t', '1', '-D', `${Math.round(seconds * 1000)}ms`, ...shape, ...posted, ...asked, url];
    const { stdout } = await runCommand('h2load', how);
    const done = Number(matched(stdout, /requests: .*?(\d+) done/));
    const good = Number(matched(stdout, /status codes: (\d+) 2xx/));
    const bytes = Number(matched(stdout, /traffic: .*\((\d+)\) data/));
    if (good < done || Math.abs(bytes / answerBytes - done) > INCOMPLETE_MAX) {
      throw new Error(`${url} did not answer all as it answered one:\n${stdout}`);
    }
    return stdout;
  }
}

function matched(text: string, pattern: RegExp): string {
  const found = pattern.exec(text)?.[1];
  if (found === undefined) throw new Error(`h2load printed no ${String(pattern)}:\n${text}`);
  return found;
}
