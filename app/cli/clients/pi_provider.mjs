// The provider that `switchyard launch pi` gives to pi; everything about it comes from the environment.
export default function (pi) {
  const model = process.env.PI_SWITCHYARD_MODEL;
  const context = Number(process.env.PI_SWITCHYARD_CONTEXT);
  pi.registerProvider("switchyard", {
    name: "Switchyard",
    baseUrl: `${process.env.SWITCHYARD_URL}/v1`,
    apiKey: "SWITCHYARD_KEY",
    api: "openai-completions",
    models: [
      {
        id: model,
        name: model,
        reasoning: false,
        input: ["text"],
        cost: { input: 0, output: 0, cacheRead: 0, cacheWrite: 0 },
        contextWindow: context,
        maxTokens: Math.ceil(context / 4),
      },
    ],
  });
}
