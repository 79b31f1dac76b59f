for (const part of Object.keys(sources)) sources[part].data = points[part][chosen.value]
