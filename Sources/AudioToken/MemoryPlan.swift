import Kernels
import Models
import Tensors
import WeightFile

/// What a picture takes of memory, stage by stage, known before the first one runs.
public struct MemoryPlan: Sendable {
  public struct Stage: Sendable {
    public let step: Step
    /// Bytes of the file that belong to the stage.
    public let weights: Int
    /// Of the stage's activations, exact.
    public let arena: Int
    /// Bytes of weights that are in memory at once.
    public let window: Int
    /// Resident memory of the process, at most: weights and activations, the plan's base, and what a stage reads or gives
    /// outside the arena.
    public let peak: Int
    /// The smallest window that the stage runs with.
    let least: Int
  }

  public let stages: [Stage]
  /// What the process takes besides weights and activations.
  public let base: Int
  /// The least resident memory that this picture can be made in.
  public let minimum: Int
  /// Whether the decoder computes its widest map more than once instead of keeping it.
  public let isFrugal: Bool
  /// Whether the UNet's first step keeps what the others would compute again of the text.
  public let keepsText: Bool
  /// What the process may take.
  let allowed: Int

  public var peak: Int { stages.map(\.peak).max() ?? base }
}

extension Pipeline {
  /// For temporary copies, what the heap keeps of them, and the pages that the system maps around those that are read;
  /// and for each thread's stack, on which kernels keep up to 350 KiB, and what else comes with a thread.
  private var reserve: Int { (11 << 17) + pool.threads * (13 << 16) }

  /// Plans a picture, or a token alone, in `limit` bytes of resident memory; nil: in what is free.
  /// - Throws: where `limit` is less than it takes, the least that would do.
  public func memoryPlan(_ settings: GenerationSettings) throws(AudioTokenError) -> MemoryPlan {
    try memoryPlan(try plan(settings), limit: settings.maxRAM)
  }

  /// - Parameter sheet: one that is held besides, from the first stage on, and encoded after the last.
  func memoryPlan(
    _ plan: Plan?, limit: Int?, sheet: ContactSheet.Layout? = nil
  ) throws(AudioTokenError) -> MemoryPlan {
    let held = sheet?.bytes ?? 0
    // Beside what is there: stacks, the sound, latents.
    let base = ProcessMemory.now().resident + reserve + held
    let least = needs(plan, isFrugal: true, keepsText: false)
    // A PNG file is there twice for a moment, and may be as large as its pixels.
    let minimum = max(least.map { base + $0.besideWeights + $0.leastWindow }.max() ?? base, base + 2 * held)
    if let limit, limit < minimum { throw refusal(limit, minimum, plan, sheet) }
    let usable = SystemMemory.available().usable
    if held > 0, limit == nil, base + 2 * held > usable {
      throw AudioTokenError(
        .system,
        "A sheet of \(sheet?.width ?? 0) x \(sheet?.height ?? 0) pixels needs \(ByteCount.describe(base + 2 * held)) of "
          + "memory, where \(ByteCount.describe(max(0, usable))) can be had; give fewer sounds and seeds, or a smaller "
          + "--scale.")
    }
    let allowed = max(limit ?? usable, minimum)
    // The fastest way that there is room for.
    let (isFrugal, keepsText) =
      [(false, true), (false, false), (true, true)].first { isFrugal, keepsText in
        needs(plan, isFrugal: isFrugal, keepsText: keepsText)
          .allSatisfy { base + $0.besideWeights + $0.leastWindow <= allowed }
      } ?? (true, false)
    let stages = needs(plan, isFrugal: isFrugal, keepsText: keepsText).map { need in
      let window = max(need.leastWindow, min(need.weights, allowed - base - need.besideWeights))
      return MemoryPlan.Stage(
        step: need.step, weights: need.weights, arena: need.arenaOfStage, window: window,
        peak: base + need.besideWeights + window, least: need.leastWindow)
    }
    return MemoryPlan(
      stages: stages, base: base, minimum: minimum, isFrugal: isFrugal, keepsText: keepsText, allowed: allowed)
  }

  private func refusal(_ limit: Int, _ minimum: Int, _ plan: Plan?, _ sheet: ContactSheet.Layout?) -> AudioTokenError {
    var picture = plan.map { "a picture of \($0.width) x \($0.height)" } ?? "a picture"
    var smaller = plan == nil ? "" : ", or choose a smaller --width and --height"
    if let sheet, sheet.rows * sheet.columns * sheet.scale > 1 {
      picture = "a sheet of \(sheet.width) x \(sheet.height)"
      smaller += ", a smaller --scale, or fewer sounds and seeds"
    }
    let megabytes = (minimum + (1 << 20) + 999_999) / 1_000_000
    return AudioTokenError(
      .usage,
      "--max-ram is \(ByteCount.describe(limit)), where \(picture) needs \(megabytes) MB with \(file.path); "
        + "give --max-ram \(megabytes)M or more\(smaller).")
  }

  private struct Need {
    let step: Step
    let weights: Int
    let arenaOfStage: Int
    /// The largest so far: memory that a stage has used is kept for the next.
    let arena: Int
    /// What it reads or gives that lies outside the arena.
    let held: Int
    let leastWindow: Int

    var besideWeights: Int { arena + held }
  }

  private func needs(_ plan: Plan?, isFrugal: Bool, keepsText: Bool) -> [Need] {
    var steps: [(Step, Int)] = [(.beats, arenaBytes { self.hear($0, bank: []) })]
    steps.append((.projector, arenaBytes { self.project($0, features: []) }))
    if let plan {
      steps.append((.text, arenaBytes { self.read($0, plan, token: []) }))
      let step = UNetStep(plan: plan, context: [], networks: networks, keepsText: keepsText)
      steps.append((.unet, arenaBytes(isGuided: plan.images == 2) { step.body($0, [], timestep: 0) }))
      steps.append((.vae, arenaBytes { self.draw($0, plan, [], isFrugal: isFrugal) }))
    }
    var largest = 0
    return steps.map { step, arena in
      largest = max(largest, arena)
      let tensors = tensors(of: step)
      return Need(
        step: step, weights: tensors.reduce(0) { $0 + $1.byteCount }, arenaOfStage: arena, arena: largest,
        held: step == .beats || step == .projector ? featureBytes : 0,
        leastWindow: leastWindow(step, tensors, tokens: plan.map { $0.images * $0.prompts[0].count } ?? 0))
    }
  }

  private func arenaBytes(isGuided: Bool = false, _ body: (Run) -> Void) -> Int {
    Run.peak(pool: pool, isGuided: isGuided, body)
  }

  /// The largest part of a matrix that is read at once, and what the system maps around it: all of a gated one. Rows that
  /// are looked up bring their neighbours with them.
  private func leastWindow(_ step: Step, _ tensors: [TensorInfo], tokens: Int) -> Int {
    let faultAround = 64 << 10
    let table = tensors.filter { $0.name.hasSuffix("token_embedding.weight") }
    let matrices = tensors.filter { tensor in !table.contains { $0.name == tensor.name } }
    let lookups = table.isEmpty ? 0 : min(table[0].byteCount, tokens * faultAround)
    let largest = matrices.map {
      $0.name.hasSuffix(".ff.in.weight") ? $0.byteCount : min($0.byteCount, PackedMatrix.partBytes)
    }.max()
    return max(largest ?? 0, lookups) + (256 << 10)
  }

  func tensors(of step: Step) -> [TensorInfo] { file.tensors.filter { $0.name.hasPrefix(step.rawValue + ".") } }

  /// The window through which a stage reads its weights.
  func window(_ step: Step) -> WeightWindow {
    let tensors = tensors(of: step)
    let start = tensors.map(\.offset).min() ?? 0
    let end = tensors.map { $0.offset + $0.byteCount }.max() ?? start
    let window = WeightWindow(file, stage: start..<end, budget: budget(step))
    window.onUse = observer
    return window
  }

  /// What is left for weights beside the activations and what the process takes now, which may be a little more or less
  /// than was planned.
  private func budget(_ step: Step) -> Int {
    guard let memory, let index = memory.stages.firstIndex(where: { $0.step == step }) else { return .max }
    let touched = kept?.touched ?? 0
    let arena = max(touched, memory.stages[index].arena)
    // Where there is room, twice as much again for large pages of the arena that are used in part.
    let rest = memory.allowed - (ProcessMemory.now().resident - touched) - arena - 3 * reserve
    return max(memory.stages[index].least, min(memory.stages[index].weights, rest))
  }
}
