import WeightFile

/// Takes the intermediate tensors of a run under the names and in the shapes of the PyTorch reference: writes them as `.npy`
/// files, or collects them.
package struct TensorDump {
  private enum Target {
    case folder(String)
    case collection(TensorCollection)
  }
  private let target: Target

  /// - Parameter folder: an existing folder.
  package init(folder: String) { target = .folder(folder) }

  package init(into collection: TensorCollection) { target = .collection(collection) }

  func write<Element: NumpyElement>(
    _ name: String, _ elements: [Element], _ shape: [Int]
  ) throws(AudioTokenError) {
    switch target {
    case .folder(let folder):
      try rendering(AudioTokenError.init(_:)) { () throws(OutputFileError) in
        try NumpyWriter.write(elements, shape: shape, to: "\(folder)/\(name).npy")
      }
    case .collection(let collection):
      if let floats = elements as? [Float] { collection.keep(floats, as: name) }
    }
  }
}

/// The tensors of floats of one run, in memory.
package final class TensorCollection {
  package private(set) var tensors: [String: [Float]] = [:]
  /// After the last step.
  package private(set) var lastLatents: [Float] = []

  package init() {}

  fileprivate func keep(_ elements: [Float], as name: String) {
    if name.hasPrefix("latents_") { lastLatents = elements } else { tensors[name] = elements }
  }
}
