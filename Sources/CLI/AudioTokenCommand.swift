import ArgumentParser
import AudioToken
import Glibc
import WeightFile

@main
struct AudioTokenCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "audiotoken",
    abstract: "Turn a sound into a picture, from one weight file, on a small machine.",
    discussion: """
      Weight files are written by audiotoken-convert.

      EXIT CODES: 0 success; 64 a setting that cannot be; 65 a file whose content is not what it should be; 66 a file that is \
      missing or cannot be read; 71 the system refuses memory; 73 the output cannot be written; 130 interrupted.
      """,
    subcommands: [Generate.self, Encode.self, Inspect.self, Bench.self])

  static func main() {
    // The library's threads and the display share nothing with the handler.
    Interruption.install()
    // A reader of the output that goes away does not stop minutes of work.
    signal(SIGPIPE, SIG_IGN)
    do {
      var command = try parseAsRoot()
      try command.run()
      guard fflush(nil) == 0 || errno == EPIPE else {
        throw AudioTokenError(
          .output, "Standard output cannot be written (\(String(cString: strerror(errno)))); write it to another disk.")
      }
    } catch let error as AudioTokenError {
      Terminal.error("audiotoken: \(error.description)")
      Glibc.exit(error.kind.rawValue)
    } catch {
      exit(withError: error)
    }
  }
}

/// Options that every command which runs the model has.
struct RunOptions: ParsableArguments {
  @Option(help: "Threads; all processors by default.")
  var threads: Int?

  @Option(help: ArgumentHelp("Kernels: portable, or those of this processor.", visibility: .hidden))
  var kernels: String?

  func pipeline(_ model: String) throws(AudioTokenError) -> Pipeline {
    try Pipeline(model: model, threads: threads ?? availableProcessors(), kernels: kernels ?? environmentKernels)
  }

  func kernelBenchmark(repetitions: Int) throws(AudioTokenError) -> KernelBenchmark {
    try KernelBenchmark(
      kernels ?? environmentKernels, threads: threads ?? availableProcessors(), repetitions: repetitions)
  }

  private var environmentKernels: String? { getenv("AUDIOTOKEN_KERNELS").map { String(cString: $0) } }
}

/// Options that choose the part of the sound.
struct SoundOptions: ParsableArguments {
  @Option(help: "Where in the sound to begin, in seconds.")
  var start = 0.0

  @Option(help: "How much of the sound to take, in seconds; up to ten by default. Shorter sounds are repeated.")
  var seconds: Double?

  func selection(_ path: String) -> SoundSelection { SoundSelection(path: path, start: start, seconds: seconds) }
}
