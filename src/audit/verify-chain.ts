/**
 * Checks events from a file, a topic or a store against their chain: each organization's sequences run without a gap,
 * each event holds the hash of the one before, and its content has the hash that it says. No source is read here.
 */
import { GENESIS_HASH, organizationPath } from '../keys/organization.js';
import { parseEvent, type ReadEvent, whatIsAltered } from './read-event.js';
import { RecentHashes } from './recent-hashes.js';

/** An event as a source holds it, in the source's order. */
export interface Entry {
  readonly text: string;
  /** Where it lies, for people: `line 3`. */
  readonly position: string;
  /** What the source says about the event beside its text: a message's key, a row's columns. */
  readonly claims?: Claims;
  /** The last line lacks its end: it is still being written, or a crash cut it off. Not checked. */
  readonly partial?: boolean;
  /** How much of the source has been read with it, 0 to 1, where that is known. */
  readonly share?: number;
}

export interface Claims {
  /** `keyspace/organization_id`. */
  readonly organization?: string;
  /** Events of an organization must share it: the order between two partitions is nobody's. */
  readonly partition?: number;
  readonly sequence?: number;
  readonly hash?: string;
  readonly eventId?: string;
  /** Empty: the event is about the organization itself. */
  readonly keyId?: string;
  /** Empty: no key's place was taken. */
  readonly previousKeyId?: string;
  /** The CloudEvent's. */
  readonly type?: string;
  readonly time?: Date;
}

/** A place in an organization's chain. */
export interface Place {
  readonly sequence: number;
  readonly hash: string;
}

/** By `keyspace/organization_id`. */
export type Places = ReadonlyMap<string, Place>;

export interface VerifyOptions {
  /** The source that events must have; absent: that of the first. */
  readonly source?: string;
  /** Delivery is at least once, so files and topics may repeat events exactly; a store may not. */
  readonly repeats: 'counted' | 'fault';
  /** Begin an organization's chain behind this place, which is trusted; what lies before is passed over. */
  readonly anchors?: Places;
  /** Where the store's chains end, as of before the reading began: less than that is missing. */
  readonly heads?: Places;
  /** The same as of after the reading: what goes beyond it is nothing that the store remembers. */
  readonly headsAfter?: () => Promise<Places>;
  /** Called every 10,000 events and at the end. */
  readonly onProgress?: (progress: { readonly events: number; readonly share?: number }) => void;
}

export const FAULT_KINDS = [
  'gap',
  'tail',
  'altered',
  'fork',
  'order',
  'repeat',
  'misplaced',
  'foreign',
  'unreadable',
  'ahead',
] as const;
/** `docs/audit.md` says what each means. */
export type FaultKind = (typeof FAULT_KINDS)[number];

export interface Fault {
  readonly kind: FaultKind;
  /** `keyspace/organization_id`; absent where it cannot be told. */
  readonly organization?: string;
  readonly sequence?: number;
  /** Absent for what is missing at the end. */
  readonly position?: string;
  readonly message: string;
}

export interface Verdict {
  readonly organizations: number;
  /** All that were read, repeats included. */
  readonly events: number;
  readonly repeats: number;
  /** Passed over since they lie before an anchor. */
  readonly beforeAnchors: number;
  /** Where each organization's chain ends as it was read: an anchor for the next time, unless it has a fault. */
  readonly ends: Places;
  /** Where a last line lacks its end. */
  readonly partialLine?: string;
  readonly faultCount: number;
  /** The first 100, in the order in which they were met. Empty: nothing is wrong. */
  readonly faults: readonly Fault[];
}

const PROGRESS_EVENTS = 10_000;
const FAULTS_MAX = 100;

export async function verifyChain(entries: AsyncIterable<Entry>, options: VerifyOptions): Promise<Verdict> {
  const verification = new Verification(options);
  for await (const entry of entries) verification.take(entry);
  return verification.end(await options.headsAfter?.());
}

/** An organization's chain, as far as it was read. */
interface Chain {
  sequence: number;
  hash: string;
  readonly partition: number | undefined;
  readonly recent: RecentHashes;
  readonly gaps: { readonly from: number; readonly to: number; readonly fault: number }[];
}

class Verification {
  readonly #options: VerifyOptions;
  readonly #chains = new Map<string, Chain>();
  readonly #faults: Fault[] = [];
  #faultCount = 0;
  #events = 0;
  #repeats = 0;
  #beforeAnchors = 0;
  #partialLine: string | undefined;
  #source: string | undefined;
  #share: number | undefined;

  constructor(options: VerifyOptions) {
    this.#options = options;
    this.#source = options.source;
  }

  take(entry: Entry): void {
    if (entry.partial) {
      this.#partialLine = entry.position;
      return;
    }
    this.#events += 1;
    this.#share = entry.share;
    this.#judge(entry);
    if (this.#events % PROGRESS_EVENTS === 0) this.#tellProgress();
  }

  end(headsAfter: Places | undefined): Verdict {
    this.#compareHeads(headsAfter);
    this.#tellProgress();
    return {
      organizations: this.#chains.size,
      events: this.#events,
      repeats: this.#repeats,
      beforeAnchors: this.#beforeAnchors,
      ends: new Map([...this.#chains].map(([organization, { sequence, hash }]) => [organization, { sequence, hash }])),
      ...(this.#partialLine !== undefined && { partialLine: this.#partialLine }),
      faultCount: this.#faultCount,
      faults: this.#faults,
    };
  }

  #judge({ text, position, claims = {} }: Entry): void {
    const event = parseEvent(text);
    if (!event) {
      this.#fault({ kind: 'unreadable', position, message: 'this is no event of Keyreeve' });
      return;
    }
    const { keyspace, organization_id: organizationId, sequence, hash } = event.data;
    const organization = organizationPath({ keyspace, organizationId });
    const at = { organization, sequence, position };

    const alteration = whatIsAltered(event, text);
    if (alteration !== undefined) {
      this.#fault({ kind: 'altered', ...at, message: alteration });
      this.#stepOver(this.#chainOf(organization, claims.partition), event);
      return;
    }
    this.#source ??= event.source;
    if (event.source !== this.#source) {
      this.#fault({ kind: 'foreign', ...at, message: 'it comes from another installation than expected' });
      return;
    }
    const contradiction = whatContradicts(claims, event, organization);
    if (contradiction) this.#fault({ ...contradiction, ...at });
    this.#link({ ...at, hash, previousHash: event.data.previous_hash, partition: claims.partition });
  }

  /** Puts a whole event into its organization's chain. */
  #link(event: Place & Linked): void {
    const { organization, sequence, hash, position } = event;
    const at = { organization, sequence, position };
    const anchor = this.#options.anchors?.get(organization);
    if (anchor && sequence <= anchor.sequence) {
      this.#beforeAnchors += 1;
      if (sequence === anchor.sequence && hash !== anchor.hash) {
        this.#fault({ kind: 'fork', ...at, message: 'it is another event than the anchor names' });
      }
      return;
    }
    const chain = this.#chainOf(organization, event.partition);
    if (chain.partition !== event.partition) {
      const message = `events of its organization lie in partition ${chain.partition} too, so their order is lost`;
      this.#fault({ kind: 'misplaced', ...at, message });
    }
    if (sequence <= chain.sequence) {
      this.#linkBack(chain, event);
      return;
    }
    if (sequence > chain.sequence + 1) {
      const missing = { from: chain.sequence + 1, to: sequence - 1 };
      const message = `${whichSequences(missing)} before it`;
      chain.gaps.push({ ...missing, fault: this.#fault({ kind: 'gap', ...at, message }) });
    } else if (event.previousHash !== chain.hash) {
      const message = `it follows another event ${sequence - 1} than the one that lies before it: one of them was replaced`;
      this.#fault({ kind: 'fork', ...at, message });
    }
    chain.sequence = sequence;
    chain.hash = hash;
    chain.recent.set(sequence, hash);
  }

  /** An event that is not above the last: a repeat, one that comes late, or a second history. */
  #linkBack(chain: Chain, { organization, sequence, hash, position }: Place & Linked): void {
    const at = { organization, sequence, position };
    const known = chain.recent.get(sequence);
    if (known === 'missing') {
      this.#comesLate(chain, { ...at, hash });
    } else if (known === 'unknown') {
      const message = `it comes again after so many others that it can no longer be compared with the first`;
      this.#fault({ kind: 'repeat', ...at, message });
    } else if (known.hash !== hash) {
      this.#fault({ kind: 'fork', ...at, message: `there are two different events ${sequence}` });
    } else {
      this.#repeats += 1;
      if (this.#options.repeats === 'fault') this.#fault({ kind: 'repeat', ...at, message: 'it is there twice' });
    }
  }

  /** What seemed to be missing is there, behind its successor: one fault, not two. */
  #comesLate(
    chain: Chain,
    { organization, sequence, hash, position }: Place & Omit<Linked, 'previousHash' | 'partition'>,
  ): void {
    chain.recent.set(sequence, hash);
    const gap = chain.gaps.find(({ from, to }) => from <= sequence && sequence <= to);
    const told = gap && this.#faults[gap.fault];
    const message = 'it comes after its successor';
    const fault: Fault = { kind: 'order', organization, sequence, position, message };
    if (gap && told?.kind === 'gap' && gap.from === gap.to) this.#faults[gap.fault] = fault;
    else this.#fault(fault);
  }

  /** An altered event still says which place was its own: then its successor is not a fault as well. */
  #stepOver(chain: Chain, { data: { sequence, hash } }: ReadEvent): void {
    if (sequence !== chain.sequence + 1) return;
    chain.sequence = sequence;
    chain.hash = hash;
    chain.recent.set(sequence, hash);
  }

  #chainOf(organization: string, partition: number | undefined): Chain {
    let chain = this.#chains.get(organization);
    if (!chain) {
      const start = this.#options.anchors?.get(organization) ?? { sequence: 0, hash: GENESIS_HASH };
      chain = { ...start, partition, recent: new RecentHashes(start.sequence), gaps: [] };
      this.#chains.set(organization, chain);
    }
    return chain;
  }

  #compareHeads(headsAfter: Places | undefined): void {
    for (const [organization, head] of this.#options.heads ?? []) this.#compareHead(organization, head);
    if (!headsAfter) return;
    // An anchor counts as read: of an organization that ends before it there is no chain.
    for (const [organization, { sequence }] of new Map<string, Place>([
      ...(this.#options.anchors ?? []),
      ...this.#chains,
    ])) {
      const known = headsAfter.get(organization)?.sequence ?? 0;
      if (sequence <= known) continue;
      const message = `the store ends at event ${known}: was it put back to an earlier state?`;
      this.#fault({ kind: 'ahead', organization, sequence: known + 1, message });
    }
  }

  #compareHead(organization: string, head: Place): void {
    const chain = this.#chains.get(organization);
    const end = chain ?? this.#options.anchors?.get(organization) ?? { sequence: 0, hash: GENESIS_HASH };
    if (head.sequence > end.sequence) {
      const missing = whichSequences({ from: end.sequence + 1, to: head.sequence });
      const message = `${missing} at the end: not published yet, or removed`;
      this.#fault({ kind: 'tail', organization, sequence: end.sequence + 1, message });
      return;
    }
    const known = head.sequence === end.sequence ? end : chain?.recent.get(head.sequence);
    if (typeof known !== 'object' || known.hash === head.hash) return;
    this.#fault({
      kind: 'fork',
      organization,
      sequence: head.sequence,
      message: `the store has another event ${head.sequence}`,
    });
  }

  /** Answers its index among the faults that are kept. */
  #fault(fault: Fault): number {
    this.#faultCount += 1;
    return this.#faults.length < FAULTS_MAX ? this.#faults.push(fault) - 1 : FAULTS_MAX;
  }

  #tellProgress(): void {
    this.#options.onProgress?.({ events: this.#events, ...(this.#share !== undefined && { share: this.#share }) });
  }
}

interface Linked {
  readonly organization: string;
  readonly position: string;
  readonly previousHash: string;
  readonly partition: number | undefined;
}

function whatContradicts(
  claims: Claims,
  { id, type, subject, time, data }: ReadEvent,
  organization: string,
): Pick<Fault, 'kind' | 'message'> | undefined {
  if (claims.sequence !== undefined && claims.sequence !== data.sequence) {
    return { kind: 'order', message: `it lies in the place of event ${claims.sequence}` };
  }
  const keyId = data.key?.key_id;
  const previousKeyId = data.previous_key?.key_id ?? '';
  if (subject !== (keyId === undefined ? organization : `${organization}/${keyId}`)) {
    return { kind: 'misplaced', message: 'its subject names something else than its data' };
  }
  const contradicts =
    (claims.organization ?? organization) !== organization ||
    (claims.hash ?? data.hash) !== data.hash ||
    (claims.eventId ?? id) !== id ||
    (claims.keyId ?? keyId ?? '') !== (keyId ?? '') ||
    (claims.previousKeyId ?? previousKeyId) !== previousKeyId ||
    (claims.type ?? type) !== type ||
    (claims.time !== undefined && claims.time.getTime() !== Date.parse(time));
  return contradicts ? { kind: 'misplaced', message: 'it is kept under something else than it says' } : undefined;
}

function whichSequences({ from, to }: { from: number; to: number }): string {
  return from === to ? `event ${from} is missing` : `events ${from} to ${to} are missing`;
}
