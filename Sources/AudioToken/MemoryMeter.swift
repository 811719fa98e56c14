import Glibc

/// What each stage of a run takes of memory, by the kernel's own accounts.
package final class MemoryMeter {
  package struct Stage: Sendable {
    package let step: Step
    package let arena: Int
    /// The highest that the kernel saw.
    package let peak: Int
    /// The highest that were sampled.
    package let anonymous: Int
    package let file: Int
    /// Page faults that had to wait for the disk, and bytes read from it.
    package let majorFaults: Int
    package let bytesRead: Int
    package let seconds: Double
  }

  package struct Sample: Sendable {
    package let seconds: Double
    package let step: Step
    package let memory: ProcessMemory
  }

  package private(set) var stages: [Stage] = []
  package private(set) var samples: [Sample] = []
  package var peak: Int { stages.map(\.peak).max() ?? 0 }

  private let pipeline: Pipeline
  private let start = monotonicSeconds()
  private var current: (step: Step, seconds: Double, faults: Int, bytes: Int)?

  /// Samples `pipeline` from now on, between the layers of its networks.
  package init(_ pipeline: Pipeline) {
    self.pipeline = pipeline
    pipeline.observer = { [unowned self] in sampleAtTimes() }
  }

  /// To be called with all progress of the pipeline.
  package func note(_ progress: Progress) {
    if progress.done == 0 {
      ProcessMemory.resetPeak()
      current = (progress.step, monotonicSeconds(), Self.majorFaults, Self.bytesRead)
    }
    sample()
    guard progress.done == progress.total, let current else { return }
    let own = samples.filter { $0.step == current.step }
    stages.append(
      Stage(
        step: current.step, arena: progress.step == .audio ? 0 : pipeline.arenaPeak,
        peak: ProcessMemory.now().peakResident, anonymous: own.map(\.memory.residentAnonymous).max() ?? 0,
        file: own.map(\.memory.residentFile).max() ?? 0, majorFaults: Self.majorFaults - current.faults,
        bytesRead: Self.bytesRead - current.bytes, seconds: monotonicSeconds() - current.seconds))
  }

  private func sampleAtTimes() {
    if monotonicSeconds() - start - (samples.last?.seconds ?? -1) >= 0.02 { sample() }
  }

  private func sample() {
    guard let current else { return }
    samples.append(Sample(seconds: monotonicSeconds() - start, step: current.step, memory: .now()))
  }

  private static var majorFaults: Int {
    var usage = rusage()
    getrusage(Int32(RUSAGE_SELF.rawValue), &usage)
    return usage.ru_majflt
  }

  private static var bytesRead: Int { SystemMemory.keyed("/proc/self/io", scale: 1)["read_bytes"] ?? 0 }
}
