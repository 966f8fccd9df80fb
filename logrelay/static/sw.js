/**
 * The service worker: keeps the page itself, so that an installed one opens without a network and says what it last knew.
 *
 * Owns: the copies of the page's files. It must not know what is in them, nor keep anything that was logged: the page
 * does that, by its own rule. The network comes first, so that an upgraded relay never meets an old page.
 * The reading trail ends here.
 */

const CACHE = "logrelay-page";
/** Milliseconds after which a network that says nothing counts as none. */
const GIVEN_UP_AFTER = 4_000;

/** Whether a request is for the page or one of its files. */
function isOurs(request) {
  const { pathname, origin } = new URL(request.url);
  const scope = new URL(self.registration.scope);
  const path = pathname.slice(scope.pathname.length);
  return request.method === "GET" && origin === scope.origin && (path === "" || path.startsWith("static/"));
}

async function answer(request) {
  const cache = await caches.open(CACHE);
  const key = new URL(request.url);
  key.search = ""; // the address of the page may have a filter
  try {
    const fresh = await fetch(request.mode === "navigate" ? key : request, { cache: "no-cache", signal: AbortSignal.timeout(GIVEN_UP_AFTER) });
    if (fresh.ok) await cache.put(key, fresh.clone());
    return fresh;
  } catch (error) {
    const kept = await cache.match(key);
    if (kept) return kept;
    throw error;
  }
}

async function keepAll() {
  const cache = await caches.open(CACHE);
  const page = await fetch("./", { cache: "no-cache" });
  const files = [...(await page.clone().text()).matchAll(/(?:href|src)="(static\/[^"]+)"/g)].map(([, file]) => file);
  await cache.put(new URL("./", self.registration.scope), page);
  await cache.addAll(files);
}

self.addEventListener("install", (event) => event.waitUntil(keepAll().then(() => self.skipWaiting())));
self.addEventListener("activate", (event) => event.waitUntil(self.clients.claim()));
self.addEventListener("fetch", (event) => isOurs(event.request) && event.respondWith(answer(event.request)));
self.addEventListener("notificationclick", (event) => {
  event.notification.close();
  event.waitUntil(self.clients.openWindow(`./#${event.notification.data}`));
});
