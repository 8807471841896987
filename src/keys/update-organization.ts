import { type Change, type OrganizationState, unchanged } from './change.js';
import type { Mutation, OrganizationFacts } from './event.js';
import { type Keyspace, type Plan, planOf } from './keyspace.js';
import { etagOfOrganization, type Organization, type OrganizationSettings, withSettings } from './organization.js';
import { type Refusal, isRefusal, refuseArgument } from './refusal.js';
import { repeated } from './repeat.js';

/** A request to change an organization's settings. Those that are absent stay as they are. */
export interface UpdateOrganization {
  readonly mutation: Mutation;
  /** Empty: not compared. */
  readonly etag: string;
  /** Empty: the keyspace's default. */
  readonly plan?: string;
  readonly suspended?: boolean;
}

/** Whether it asks for something by which all keys are good for less, be it so already. */
export function canTakeAwayFromAll({ plan, suspended }: UpdateOrganization): boolean {
  return plan !== undefined || suspended === true;
}

export interface UpdateOrganizationDraw {
  readonly now: Date;
  readonly eventId: string;
}

/** Changes the settings. What is as it was asked to be is not changed, and where all is, nothing happens. */
export function updateOrganization(
  state: OrganizationState,
  ask: UpdateOrganization,
  keyspace: Keyspace,
  draw: UpdateOrganizationDraw,
): Change<Organization> | Refusal {
  const { organization } = state;
  const earlier = repeated(state, ask.mutation);
  if (isRefusal(earlier)) return earlier;
  if (earlier) return unchanged(organization);

  if (ask.etag !== '' && ask.etag !== etagOfOrganization(organization)) return { refused: 'ETAG_MISMATCH' };
  if (ask.plan !== undefined && ask.plan !== '' && !keyspace.plans.has(ask.plan)) {
    const plans = [...keyspace.plans.keys()].join(', ');
    return refuseArgument('PLAN_UNKNOWN', 'organization.plan', `organization.plan must be one of ${plans}`);
  }

  const { mutation } = ask;
  const request = mutation.request && { request: { mutation, keyIds: [] } };
  const settings = settingsFor(organization, ask);
  const before = planOf(keyspace, organization);
  const after = planOf(keyspace, settings);
  const replanned = settings.plan !== organization.plan;
  const switched = settings.suspended !== organization.suspended;
  if (!replanned && !switched) return { ...unchanged(organization), ...request };
  const facts = (plan: Plan, suspended: boolean): OrganizationFacts => ({
    ...(replanned && { plan: plan.name }),
    ...(switched && { suspended }),
  });
  return {
    answer: asWritten(withSettings(organization, settings), draw.now),
    settings,
    widens: (switched && !settings.suspended) || allowsMore(after, before),
    put: [],
    events: [
      {
        eventId: draw.eventId,
        type: 'organization.updated',
        time: draw.now,
        mutation,
        before: facts(before, organization.suspended),
        after: facts(after, settings.suspended),
      },
    ],
    ...request,
  };
}

function settingsFor(organization: Organization, ask: UpdateOrganization): OrganizationSettings {
  const plan = ask.plan ?? organization.plan ?? '';
  return { ...(plan !== '' && { plan }), suspended: ask.suspended ?? organization.suspended };
}

/** With the times that the event will give it. */
function asWritten(organization: Organization, now: Date): Organization {
  const { createTime, lastEventTime } = organization;
  const time = lastEventTime && lastEventTime > now ? lastEventTime : now;
  return { ...organization, createTime: createTime ?? time, updateTime: time };
}

function allowsMore(after: Plan, before: Plan): boolean {
  const limit = (plan: Plan, of: 'keyLimit' | 'requestsPerMinute') => plan[of] ?? Number.POSITIVE_INFINITY;
  return (['keyLimit', 'requestsPerMinute'] as const).some((of) => limit(after, of) > limit(before, of));
}
