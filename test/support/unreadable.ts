/** What an Authorization header may hold of a token that is good, and must not be taken for it. */
export function unreadableBearers(bearer: string): readonly string[] {
  return [
    `${bearer} ${bearer}`,
    `Bearer ${bearer} ${bearer}`,
    `Bearer Bearer ${bearer}`,
    `${bearer} Bearer ${bearer}`,
    'Bearer',
    '',
    `Basic ${bearer}`,
    `Bearer\t${bearer}`,
    `Bearer=${bearer}`,
    `"${bearer}"`,
    `Bearer ${bearer}\u00a0`,
    `Bearer ${bearer.slice(0, -1)}\u00ff`,
  ];
}
