// Stands for Matomo's tracker: the documented part of it that sites use most, written anew.
(function () {
  "use strict";

  // Applied before everything else, wherever they stand in the queue that was there before this script.
  const FIRST = [
    "addTracker", "enableFileTracking", "forgetCookieConsentGiven", "requireCookieConsent",
    "disableBrowserFeatureDetection", "disableCampaignParameters", "disableCookies", "setTrackerUrl", "setAPIUrl",
    "enableCrossDomainLinking", "setCrossDomainLinkingTimeout", "setSessionCookieTimeout", "setVisitorCookieTimeout",
    "setCookieNamePrefix", "setCookieSameSite", "setSecureCookie", "setCookiePath", "setCookieDomain", "setDomains",
    "setUserId", "setVisitorId", "setSiteId", "alwaysUseSendBeacon", "disableAlwaysUseSendBeacon",
    "enableLinkTracking", "setCookieConsentGiven", "requireConsent", "setConsentGiven", "disablePerformanceTracking",
    "setPagePerformanceTiming", "setExcludedQueryParams", "setExcludedReferrers",
  ];
  const SEVERAL = ["addTracker", "enableLinkTracking"];
  // Known, and without an effect here.
  const IDLE = [
    "alwaysUseSendBeacon", "disableAlwaysUseSendBeacon", "disableBrowserFeatureDetection", "disablePerformanceTracking",
    "disableCampaignParameters", "enableBrowserFeatureDetection", "enableCrossDomainLinking", "enableFileTracking",
    "enableHeartBeatTimer", "enableJSErrorTracking", "setAPIUrl", "setCampaignKeywordKey", "setCampaignNameKey",
    "setCrossDomainLinkingTimeout", "setDownloadExtensions", "setExcludedQueryParams", "setExcludedReferrers",
    "setLinkTrackingTimer", "setPagePerformanceTiming", "setReferralCookieTimeout", "setRequestMethod",
    "setSessionCookieTimeout", "setVisitorCookieTimeout", "trackAllContentImpressions",
    "trackVisibleContentImpressions", "setGenerationTimeMs", "setCustomData", "discardHashTag",
  ];
  const DOWNLOADS = /\.(7z|csv|docx?|epub|exe|gz|iso|mp[34]|ods|odt|pdf|pptx?|rar|tar|xlsx?|zip)$/i;
  const VISITOR_AGE = 33955200;
  const VISIT = 1800;
  const CONSENT_AGE = 30 * 365 * 86400;

  function sha1(text) {
    const bytes = new TextEncoder().encode(text);
    const words = new Array((((bytes.length + 8) >> 6) + 1) * 16).fill(0);
    bytes.forEach((byte, i) => (words[i >> 2] |= byte << (24 - (i % 4) * 8)));
    words[bytes.length >> 2] |= 0x80 << (24 - (bytes.length % 4) * 8);
    words[words.length - 1] = bytes.length * 8;
    const turn = (word, n) => (word << n) | (word >>> (32 - n));
    const state = [0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0];
    for (let block = 0; block < words.length; block += 16) {
      const w = words.slice(block, block + 16);
      for (let i = 16; i < 80; i++) w[i] = turn(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
      let [a, b, c, d, e] = state;
      for (let i = 0; i < 80; i++) {
        const [f, k] =
          i < 20 ? [(b & c) | (~b & d), 0x5a827999]
          : i < 40 ? [b ^ c ^ d, 0x6ed9eba1]
          : i < 60 ? [(b & c) | (b & d) | (c & d), 0x8f1bbcdc]
          : [b ^ c ^ d, 0xca62c1d6];
        [a, b, c, d, e] = [(turn(a, 5) + f + e + k + w[i]) | 0, a, turn(b, 30), c, d];
      }
      [a, b, c, d, e].forEach((word, i) => (state[i] = (state[i] + word) | 0));
    }
    return state.map((word) => (word >>> 0).toString(16).padStart(8, "0")).join("");
  }

  const now = () => Math.floor(Date.now() / 1000);
  const given = (value) => value !== undefined && value !== null && value !== false && value !== "";

  function readCookie(name) {
    const found = document.cookie.split("; ").find((pair) => pair.startsWith(name + "="));
    return found ? decodeURIComponent(found.slice(name.length + 1)) : "";
  }

  function random(length, letters) {
    const bytes = crypto.getRandomValues(new Uint8Array(length));
    return Array.from(bytes, (byte) => letters[byte % letters.length]).join("");
  }

  class Tracker {
    constructor(url, siteId) {
      this.url = url || "";
      this.siteId = siteId || "";
      this.userId = "";
      this.visitorId = "";
      this.title = null;
      this.address = null;
      this.referrer = null;
      this.dimensions = {};
      this.variables = { visit: {}, page: {} };
      this.product = {};
      this.items = new Map();
      this.appended = "";
      this.pageView = "";
      this.domains = [];
      this.cookies = true;
      this.cookieConsent = true;
      this.consentNeeded = false;
      this.consent = readCookie("mtm_consent") !== "" && readCookie("mtm_consent_removed") === "";
      this.optedOut = readCookie("mtm_consent_removed") !== "";
      this.waiting = [];
      this.doNotTrack = false;
      this.linkTracking = false;
      this.prefix = "_pk_";
      this.domain = "";
      this.path = "";
      this.secure = false;
      this.sameSite = "Lax";
      for (const name of IDLE) if (!this[name]) this[name] = () => {};
    }

    // Configuration.
    setTrackerUrl(url) { this.url = url; }
    getTrackerUrl() { return this.url; }
    setSiteId(id) { this.siteId = String(id); }
    getSiteId() { return this.siteId; }
    setUserId(id) { if (given(id)) this.userId = String(id); }
    getUserId() { return this.userId; }
    resetUserId() { this.userId = ""; }
    setVisitorId(id) { if (/^[0-9a-f]{16}$/i.test(id)) this.visitorId = id; }
    setDocumentTitle(title) { this.title = title; }
    setCustomUrl(url) { this.address = new URL(url, location.href).href; }
    getCurrentUrl() { return this.address || location.href; }
    setReferrerUrl(url) { this.referrer = url; }
    setPageViewId(id) { this.pageView = id; }
    getPageViewId() { return this.pageView; }
    setCustomDimension(id, value) { if (id > 0) this.dimensions["dimension" + id] = String(value ?? ""); }
    getCustomDimension(id) { return this.dimensions["dimension" + id]; }
    deleteCustomDimension(id) { delete this.dimensions["dimension" + id]; }
    setCustomVariable(index, name, value, scope) {
      (this.variables[scope || "visit"] || {})[index] = [String(name), String(value)];
    }
    deleteCustomVariable(index, scope) { delete (this.variables[scope || "visit"] || {})[index]; }
    appendToTrackingUrl(text) { this.appended = text; }
    setDomains(domains) { this.domains = [].concat(domains); }
    setDoNotTrack(wanted) {
      this.doNotTrack = wanted && (navigator.doNotTrack === "1" || navigator.doNotTrack === "yes");
      if (this.doNotTrack) this.disableCookies();
    }

    // Consent.
    requireConsent() { this.consentNeeded = true; }
    isConsentRequired() { return this.consentNeeded; }
    hasConsent() { return this.consent; }
    setConsentGiven() {
      this.consent = true;
      this.deleteCookie("mtm_consent_removed");
      this.waiting.splice(0).forEach((parameters) => this.send(parameters));
    }
    rememberConsentGiven(hours) {
      this.setCookie("mtm_consent", Date.now(), hours ? hours * 3600 : CONSENT_AGE);
      this.setConsentGiven();
    }
    forgetConsentGiven() {
      this.deleteCookie("mtm_consent");
      this.setCookie("mtm_consent_removed", Date.now(), CONSENT_AGE);
      this.consent = false;
      this.consentNeeded = true;
    }
    requireCookieConsent() { this.cookieConsent = readCookie("mtm_cookie_consent") !== ""; }
    setCookieConsentGiven() { this.cookieConsent = true; }
    rememberCookieConsentGiven(hours) {
      this.setCookie("mtm_cookie_consent", Date.now(), hours ? hours * 3600 : CONSENT_AGE);
      this.cookieConsent = true;
    }
    forgetCookieConsentGiven() {
      this.deleteCookie("mtm_cookie_consent");
      this.cookieConsent = false;
      this.deleteCookies();
    }
    optUserOut() { this.forgetConsentGiven(); this.optedOut = true; }
    forgetUserOptOut() { this.deleteCookie("mtm_consent_removed"); this.optedOut = false; }
    isUserOptedOut() { return this.optedOut; }

    // Cookies.
    disableCookies() { this.cookies = false; }
    areCookiesEnabled() { return this.cookies && this.cookieConsent; }
    setCookieNamePrefix(prefix) { this.prefix = prefix; }
    setCookieDomain(domain) { this.domain = domain.replace(/\.$/, "").replace(/^\*\./, ".").replace(/\/.*/, ""); }
    setCookiePath(path) { this.path = path; }
    setSecureCookie(secure) { this.secure = secure && location.protocol === "https:"; }
    setCookieSameSite(value) { this.sameSite = value; }
    cookieName(base) {
      const hash = sha1((this.domain || location.hostname) + (this.path || "/")).slice(0, 4);
      return this.prefix + base + "." + this.siteId + "." + hash;
    }
    setCookie(name, value, seconds) {
      document.cookie = name + "=" + encodeURIComponent(value) + ";path=" + (this.path || "/") + ";max-age=" + seconds
        + (this.domain ? ";domain=" + this.domain : "") + (this.secure ? ";secure" : "") + ";SameSite=" + this.sameSite;
    }
    deleteCookie(name) { this.setCookie(name, "", 0); }
    deleteCookies() { ["id", "ses", "ref", "cvar"].forEach((base) => this.deleteCookie(this.cookieName(base))); }
    getVisitorId() {
      if (this.visitorId) return this.visitorId;
      const stored = this.areCookiesEnabled() ? readCookie(this.cookieName("id")).split(".")[0] : "";
      this.visitorId = /^[0-9a-f]{16}$/.test(stored) ? stored : random(16, "0123456789abcdef");
      return this.visitorId;
    }
    touchCookies() {
      if (!this.areCookiesEnabled()) return;
      const created = readCookie(this.cookieName("id")).split(".")[1] || now();
      this.setCookie(this.cookieName("id"), this.getVisitorId() + "." + created + ".", VISITOR_AGE);
      this.setCookie(this.cookieName("ses"), "1", VISIT);
    }

    // Tracking.
    trackPageView(title, data) {
      this.pageView = random(6, "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ");
      this.track({ action_name: title || this.title || document.title, ...this.product }, data);
    }
    trackEvent(category, action, name, value, data) {
      if (!String(category ?? "").trim() || !String(action ?? "").trim()) {
        console.error("Error while logging event: Parameters `category` and `action` must not be empty or filled with whitespaces");
        return;
      }
      const event = { e_c: category, e_a: action, ca: 1 };
      if (given(name)) event.e_n = name;
      if (given(value) && Number.isFinite(Number(value))) event.e_v = value;
      this.track(event, data);
    }
    trackSiteSearch(keyword, category, count, data) {
      const search = { search: keyword };
      if (given(category)) search.search_cat = category;
      if (count !== undefined && count !== null && count !== false) search.search_count = count;
      this.track(search, data);
    }
    trackGoal(id, revenue, data) {
      const goal = { idgoal: id };
      if (revenue !== undefined && revenue !== null) goal.revenue = revenue;
      this.track(goal, data);
    }
    trackLink(url, type, data) { this.track(type === "download" ? { download: url, url } : { link: url, url }, data); }
    trackContentImpression(name, piece, target) {
      this.track({ c_n: name, c_p: piece || "Unknown", ...(target ? { c_t: target } : {}), ca: 1 });
    }
    trackContentInteraction(interaction, name, piece, target) {
      this.track({ c_i: interaction, c_n: name, c_p: piece || "Unknown", ...(target ? { c_t: target } : {}), ca: 1 });
    }
    trackRequest(query) { this.track(Object.fromEntries(new URLSearchParams(query))); }
    ping() { this.track({ ping: 1 }); }
    setEcommerceView(sku, name, category, price) {
      this.product = {};
      if (given(price)) this.product._pkp = price;
      if (given(sku)) this.product._pks = sku;
      if (given(name)) this.product._pkn = name;
      if (given(category)) this.product._pkc = Array.isArray(category) ? JSON.stringify(category) : category;
    }
    addEcommerceItem(sku, name, category, price, quantity) {
      if (given(sku)) this.items.set(String(sku), [String(sku), name || "", category || "", price || 0, quantity || 1]);
    }
    removeEcommerceItem(sku) { this.items.delete(String(sku)); }
    clearEcommerceCart() { this.items.clear(); }
    getEcommerceItems() { return Object.fromEntries(this.items); }
    trackEcommerceCartUpdate(total) {
      this.track({ idgoal: 0, revenue: total, ec_items: JSON.stringify([...this.items.values()]) });
    }
    trackEcommerceOrder(id, total, subTotal, tax, shipping, discount) {
      if (!given(id)) return;
      const order = { idgoal: 0, ec_id: id, revenue: total };
      const sums = { ec_st: subTotal, ec_tx: tax, ec_sh: shipping, ec_dt: discount };
      for (const [name, value] of Object.entries(sums)) if (given(value) || value === 0) order[name] = value;
      this.track({ ...order, ec_items: JSON.stringify([...this.items.values()]) });
      this.items.clear();
    }

    // Links.
    enableLinkTracking() {
      if (this.linkTracking) return;
      this.linkTracking = true;
      const follow = (event) => {
        const link = event.target.closest && event.target.closest("a[href], area[href]");
        if (link && event.button < 2) this.trackClick(link);
      };
      document.addEventListener("click", follow, true);
      document.addEventListener("auxclick", follow, true);
    }
    trackClick(link) {
      if (!this.linkTracking || !/^https?:$/.test(link.protocol) || /(^|\s)(matomo|piwik)_ignore(\s|$)/.test(link.className)) return;
      const own = link.hostname === location.hostname || this.domains.some((domain) => this.covers(domain, link.hostname));
      if (DOWNLOADS.test(link.pathname) || link.hasAttribute("download")) this.trackLink(link.href, "download");
      else if (!own) this.trackLink(link.href, "link");
    }
    covers(domain, host) {
      const bare = domain.replace(/^https?:\/\//, "").replace(/\/.*/, "");
      return bare.startsWith("*.") ? host === bare.slice(2) || host.endsWith(bare.slice(1)) : host === bare;
    }
    disableLinkTracking() { this.linkTracking = false; }

    track(parameters, data) {
      if (this.doNotTrack || this.optedOut) return;
      for (const [name, value] of Object.entries(data || {})) {
        if (/^dimension\d+$/.test(name)) parameters[name] = value;
      }
      if (this.consentNeeded && !this.consent) this.waiting.push(parameters);
      else this.send(parameters);
    }
    send(parameters) {
      const time = new Date();
      this.touchCookies();
      const hit = {
        idsite: this.siteId, rec: 1, r: random(6, "0123456789"),
        h: time.getHours(), m: time.getMinutes(), s: time.getSeconds(),
        url: this.getCurrentUrl(), _id: this.getVisitorId(), send_image: 0, cookie: this.areCookiesEnabled() ? 1 : 0,
        res: screen.width + "x" + screen.height, pv_id: this.pageView,
        ...this.dimensions, ...parameters,
      };
      const referrer = this.referrer ?? document.referrer;
      if (referrer) hit.urlref = referrer;
      if (this.userId) hit.uid = this.userId;
      if (Object.keys(this.variables.page).length) hit.cvar = JSON.stringify(this.variables.page);
      if (Object.keys(this.variables.visit).length) hit._cvar = JSON.stringify(this.variables.visit);
      const body = new URLSearchParams(hit) + (this.appended ? "&" + this.appended.replace(/^[?&]/, "") : "");
      const type = "application/x-www-form-urlencoded; charset=utf-8";
      if (navigator.sendBeacon && navigator.sendBeacon(this.url, new Blob([body], { type }))) return;
      // What is too much for a beacon is too much for a request that outlives the page.
      fetch(this.url, { method: "POST", body, headers: { "Content-Type": type }, mode: "no-cors" })
        .catch(() => {});
    }
  }

  const trackers = [];

  function apply(...all) {
    for (const call of all) {
      const [method, ...parameters] = Array.isArray(call) ? call : [call];
      if (method === "addTracker") {
        trackers.push(new Tracker(parameters[0] || trackers[0].url, parameters[1] || trackers[0].siteId));
        continue;
      }
      for (const tracker of [...trackers]) {
        if (typeof method === "function") method.apply(tracker, parameters);
        else if (typeof tracker[method] === "function") tracker[method](...parameters);
        else console.error(`The method '${method}' was not found in "_paq" variable. Please have a look at the Matomo tracker documentation: https://developer.matomo.org/api-reference/tracking-javascript`);
      }
    }
  }

  window.Matomo = window.Piwik = {
    initialized: Array.isArray(window._paq),
    getTracker: (url, siteId) => new Tracker(url, siteId),
    getAsyncTracker: (url, siteId) =>
      trackers.find((tracker) => (!url || tracker.url === url) && (!siteId || tracker.siteId === String(siteId))),
    getAsyncTrackers: () => [...trackers],
  };
  // Without a queue nobody has asked for a tracker; with an object there is one already.
  if (!Array.isArray(window._paq)) return;
  const queue = window._paq.slice();
  trackers.push(new Tracker());
  const applied = new Set();
  for (const name of ["setTrackerUrl", "setSiteId", ...FIRST]) {
    for (const call of queue.filter((entry) => Array.isArray(entry) && entry[0] === name)) {
      if (applied.has(call)) continue;
      if (applied.has(name) && !SEVERAL.includes(name)) {
        console.error(`The method ${name} is registered more than once in "_paq" variable. Only the last call has an effect.`);
      }
      apply(call);
      applied.add(name).add(call);
    }
  }
  queue.filter((call) => !applied.has(call)).forEach((call) => apply(call));
  window._paq = { push: apply };
})();
