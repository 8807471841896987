export type ActorType = 'USER' | 'SERVICE' | 'API_KEY' | 'SYSTEM';

/** On whose behalf something was done, as it is stored and audited. Its permissions are judged and forgotten. */
export interface Actor {
  readonly type: ActorType;
  readonly id: string;
}

/** An actor as a call states it. */
export interface ActingActor extends Actor {
  readonly permissions: readonly string[];
}
