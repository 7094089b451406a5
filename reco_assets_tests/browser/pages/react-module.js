// React itself, as the module that a bundler or a CDN would give.
export const { useCallback, useRef } = window.React;
