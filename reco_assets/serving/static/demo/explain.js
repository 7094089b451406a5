// @ts-check
export function explain() {}
