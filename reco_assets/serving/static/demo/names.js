// @ts-check
const HABITS = [
  ...["Amber", "Brisk", "Calm", "Clever", "Copper", "Curious", "Early", "Gentle", "Grey", "Hidden", "Keen"],
  ...["Late", "Lively", "Lucky", "Merry", "Modest", "Northern", "Patient", "Quick", "Quiet", "Rainy", "Silver"],
  ...["Sleepy", "Steady", "Sunny", "Swift", "Tidy", "Upland", "Velvet", "Wandering", "Winter", "Young"],
];
const BIRDS = [
  ...["Avocet", "Bittern", "Bunting", "Crane", "Curlew", "Dipper", "Dunlin", "Finch", "Gannet", "Godwit", "Grebe"],
  ...["Heron", "Hoopoe", "Ibis", "Jay", "Kestrel", "Kingfisher", "Lapwing", "Lark", "Linnet", "Martin", "Nightjar"],
  ...["Oriole", "Osprey", "Pipit", "Plover", "Redstart", "Shrike", "Siskin", "Swallow", "Tern", "Wren"],
];

/** A name for a user whom the database knows by id only; made up, and always the same. @param {string} id */
export function nameOf(id) {
  let hash = 7;
  for (const character of id) hash = (hash * 31 + character.charCodeAt(0)) >>> 0;
  return `${HABITS[hash % HABITS.length]} ${BIRDS[(hash >>> 8) % BIRDS.length]}`;
}

/** Names of several users who stand together: where two share one, with the beginning of the id. @param {string[]} ids */
export function namesOf(ids) {
  const names = ids.map(nameOf);
  const alone = (/** @type {string} */ name) => names.indexOf(name) === names.lastIndexOf(name);
  return names.map((name, at) => (alone(name) ? name : `${name} ${ids[at].slice(0, 4)}`));
}
