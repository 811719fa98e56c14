import WeightFile

/// Writes the intermediate tensors of a run as `.npy` files, under the names and in the shapes of the PyTorch reference.
package struct TensorDump: Sendable {
  private let folder: String

  /// - Parameter folder: an existing folder.
  package init(folder: String) { self.folder = folder }

  func write<Element: NumpyElement>(
    _ name: String, _ elements: [Element], _ shape: [Int]
  ) throws(AudioTokenError) {
    try rendering(AudioTokenError.init(_:)) { () throws(OutputFileError) in
      try NumpyWriter.write(elements, shape: shape, to: "\(folder)/\(name).npy")
    }
  }
}
